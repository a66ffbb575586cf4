"""Time: how long a stream takes, and where each queue waits for what."""
