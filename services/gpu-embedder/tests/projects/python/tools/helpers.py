def batches(rows: object) -> list[str]:
    return []
