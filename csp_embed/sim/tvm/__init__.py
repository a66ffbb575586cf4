"""TVM's own simulators, run as foreign libraries in a process of their own."""
