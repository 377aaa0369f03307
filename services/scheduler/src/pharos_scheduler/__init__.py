"""Every job's state: admission, order, dispatch, expiry."""
