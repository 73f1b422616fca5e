"""Reports: one HTML file that tells what a result says, and opens anywhere."""
