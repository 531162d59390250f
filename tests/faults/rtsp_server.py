"""A real RTSP server, of GStreamer's: `/usr/bin/python3 rtsp_server.py PORT play|record DESCRIPTION [USER PASSWORD]`

For the system's Python, which has its bindings. Serves at /live what the description of a pipeline makes, or gives what
is published there to one; prints its port when it is ready.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def restrict(server: GstRtspServer.RTSPServer, factory: GstRtspServer.RTSPMediaFactory, user: str, word: str) -> None:
    """Ask for credentials, by digest."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string(GstRtspServer.RTSP_TOKEN_MEDIA_FACTORY_ROLE, "user")
    auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
    auth.add_digest(user, word, token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    for permission in (GstRtspServer.RTSP_PERM_MEDIA_FACTORY_ACCESS, GstRtspServer.RTSP_PERM_MEDIA_FACTORY_CONSTRUCT):
        permissions.add_permission_for_role("user", permission, True)
    factory.set_permissions(permissions)


def main() -> None:
    """Serve until the process is ended."""
    port, mode, description, *credentials = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(description)
    if mode == "record":
        factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
        factory.set_latency(0)
    else:
        factory.set_shared(True)
    if credentials:
        restrict(server, factory, *credentials)
    server.get_mount_points().add_factory("/live", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} is taken")
    sys.stdout.write(f"{server.get_bound_port()}\n")
    sys.stdout.flush()
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
