# The gateway: HTTP in, commands out. No machine learning library, no database.
# From the repository root: docker build -f deploy/images/gateway.Dockerfile -t pharos/gateway .
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv --without-pip /venv
COPY constraints.txt ./
COPY libs/contracts libs/contracts
COPY libs/service libs/service
COPY libs/sources libs/sources
COPY services/gateway services/gateway
RUN pip --python /venv/bin/python install --no-cache-dir -c constraints.txt \
    ./libs/contracts ./libs/service ./libs/sources ./services/gateway \
    && pip --python /venv/bin/python check

FROM python:3.11-slim
# For connections to repositories. The version of git is Debian's latest security fix, on purpose.
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
    PHAROS_HOST=0.0.0.0 \
    PHAROS_PORT=8000
WORKDIR /var/lib/pharos
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PHAROS_PORT']), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "pharos_gateway"]
