"""A model on text: whatever a user may name as a source, its scores, and the rows of tables they become."""
