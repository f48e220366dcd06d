"""Reading a recipe from a file, with the place of each mistake."""
