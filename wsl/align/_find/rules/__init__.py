"""What each primitive says about the axes that it touches."""
