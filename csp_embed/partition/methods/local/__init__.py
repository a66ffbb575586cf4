"""Local search for the makespan: annealing on orders and devices, and the genetic baseline."""
