"""A script: its own folder comes first, even before the standard library."""

import csv
import queue

import lending
import requests
from helpers import batches

waiting = queue.Waiting()
for batch in batches(csv.reader([])):
    waiting.put(requests.get(lending.search(lending.Catalogue(), batch)))
