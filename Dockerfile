# A container of one static program: no shell, no libraries, no root.
#   docker build -t evertoken .
#   docker run -d --restart unless-stopped -p 127.0.0.1:8080:8080 -v evertoken:/state \
#     -v "$PWD/config:/etc/evertoken:ro" -e EVERTOKEN_API_KEY -e CLAUDE_REFRESH_TOKEN … evertoken
# The folder config holds providers.yaml, which user 65532 has to be able to read (mode 644). evertoken listens on every
# address of the container, so settings.auth.enabled has to be on (docs/installing.md).

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN contrib/build-static && mkdir -p target/root/state target/root/etc/evertoken

FROM scratch
COPY --from=build --chown=65532:65532 /src/target/root/ /
COPY --from=build /src/target/static/evertoken /evertoken
USER 65532:65532
ENV STATE_DIRECTORY=/state
VOLUME /state
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["/evertoken", "status", "--quiet", "--config", "/etc/evertoken/providers.yaml", "--listen", "0.0.0.0:8080"]
ENTRYPOINT ["/evertoken"]
CMD ["run", "--config", "/etc/evertoken/providers.yaml", "--listen", "0.0.0.0:8080"]
