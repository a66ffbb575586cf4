"""Files of the serving planner: instances, clusters, traces, plans."""
