"""One module for each format. Each has `read(content, assembly)`: text for what is text, bytes for the rest.

They are imported when the first document of their kind is read, and so are the libraries behind them.
"""
