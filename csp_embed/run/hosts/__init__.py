"""Devices on other hosts: a worker over TCP, Dask workers, and what their links really carry."""
