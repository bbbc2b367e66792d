"""Multiruns: the sweepers, the search space, the members and their records, the table and the plot."""
