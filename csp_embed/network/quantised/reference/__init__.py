"""The NumPy reference of quantised graphs: the oracle that shares nothing with the compiler."""
