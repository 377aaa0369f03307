try:
    import orjson as json
except ImportError:
    import json


def table(rows: list[str]) -> str:
    return str(json.dumps(rows))
