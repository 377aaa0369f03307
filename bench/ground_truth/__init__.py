"""What each language's own tool says that an import means, in larger projects than a person can check.

An oracle takes the folder of a project and gives the edges (file, file it imports), both relative to the
folder. It shares no code with the resolvers.
"""
