"""Layer programs: new networks from the blocks of one network."""
