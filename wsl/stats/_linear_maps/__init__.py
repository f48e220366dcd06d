"""The linear maps of a traced function, and their inputs' statistics."""
