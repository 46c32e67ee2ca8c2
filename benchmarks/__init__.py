"""Speed, each kind of work against a textbook baseline in the same run: `make bench`."""
