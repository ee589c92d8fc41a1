"""Pages in one file: what a report shows, readable without a server and without a network."""
