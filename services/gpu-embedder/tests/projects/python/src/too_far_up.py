too_far_up = "no relative import leads here"
