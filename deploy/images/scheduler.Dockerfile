# The scheduler: the state of every job. It also has `pharos-bus`, which makes the streams as declared.
# From the repository root: docker build -f deploy/images/scheduler.Dockerfile -t pharos/scheduler .
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv --without-pip /venv
COPY constraints.txt ./
COPY libs/contracts libs/contracts
COPY libs/service libs/service
COPY services/scheduler services/scheduler
RUN pip --python /venv/bin/python install --no-cache-dir -c constraints.txt \
    ./libs/contracts ./libs/service ./services/scheduler \
    && pip --python /venv/bin/python check

FROM python:3.11-slim
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
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD ["python", "-c", "import http.client, os; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['PHAROS_HEALTH_PORT']), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["python", "-m", "pharos_scheduler"]
