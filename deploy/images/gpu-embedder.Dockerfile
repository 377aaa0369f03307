# The embedder: source to vectors, and search over them. The argument of the container is its role:
#   docker run pharos/gpu-embedder --role worker | --role search | --role all
# From the repository root: docker build -f deploy/images/gpu-embedder.Dockerfile -t pharos/gpu-embedder .
FROM python:3.11-slim AS build
# cuda: torch as the package index has it, several GB, for GPU nodes. cpu: torch without CUDA.
ARG TORCH=cuda
WORKDIR /build
RUN python -m venv --without-pip /venv
COPY constraints.txt ./
# torch has a layer of its own: a change of the code does not download it again. Its version is the same in
# both builds (constraints.txt), so the second installation below is satisfied with either.
RUN case "$TORCH" in \
      cuda) pip --python /venv/bin/python install --no-cache-dir -c constraints.txt torch ;; \
      cpu) pip --python /venv/bin/python install --no-cache-dir -c constraints.txt --no-deps \
        --index-url https://download.pytorch.org/whl/cpu torch ;; \
      *) echo "TORCH is cuda or cpu, not '$TORCH'" >&2; exit 1 ;; \
    esac
COPY libs/contracts libs/contracts
COPY libs/service libs/service
COPY libs/sources libs/sources
COPY services/gpu-embedder services/gpu-embedder
RUN pip --python /venv/bin/python install --no-cache-dir -c constraints.txt \
    ./libs/contracts ./libs/service ./libs/sources ./services/gpu-embedder \
    && pip --python /venv/bin/python check

FROM python:3.11-slim
# The version of git is Debian's latest security fix, on purpose.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates git \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 pharos \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/pharos --create-home --shell /usr/sbin/nologin pharos
COPY --from=build /venv /venv
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PHAROS_HOME=/var/lib/pharos \
    PHAROS_HEALTH_HOST=0.0.0.0 \
    PHAROS_HEALTH_PORT=8081
WORKDIR /var/lib/pharos
USER 10001:10001
EXPOSE 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=180s CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PHAROS_HEALTH_PORT']), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "pharos_embedder"]
