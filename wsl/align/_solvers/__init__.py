"""Parts of the assignment solvers on the host."""
