"""TFLite files as quantised graphs."""
