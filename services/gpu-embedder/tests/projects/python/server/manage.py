#!/usr/bin/env python
import os

from shop.settings import DEBUG

os.environ["DEBUG"] = str(DEBUG)
