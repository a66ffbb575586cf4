"""Plans that say which request goes where: phases on machines of their own, limits on latency.

paths.cheapest_routes(…)       routes of least cost by dynamic programming over layers
value.route_plan(…)            the best use of a placement: a linear program over routes
bound.phase_bound(…)           what no placement can exceed
search.search_routes(…)        placements
"""
