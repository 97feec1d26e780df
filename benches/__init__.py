"""Side-by-side with what a user would write instead: `make bench`, or `python -m benches [name ...]`."""
