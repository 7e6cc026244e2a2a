"""The two minimal systems in which induction heads can be followed to the last parameter: classify and recall."""
