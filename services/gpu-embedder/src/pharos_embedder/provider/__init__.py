"""An encoder that is a server: any that answers `POST …/embeddings` as OpenAI's does.

`endpoint` says where it is and what it may be asked, `protocol` is its language, `pacing` when the next
request may go, `client` asks it, and `encoder` does so for everybody who needs vectors.
"""
