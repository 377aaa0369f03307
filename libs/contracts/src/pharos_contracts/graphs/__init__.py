"""The structure of what was indexed: its file graph, related files, and a map."""
