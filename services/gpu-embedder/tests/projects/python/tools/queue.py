class Waiting:
    def put(self, item: object) -> None:
        pass
