"""Many runs of one command: what became of each, the table and the plot, and Optuna's search. Knows no Hydra."""
