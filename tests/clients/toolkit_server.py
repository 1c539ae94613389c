"""An issuer that others wrote, django-oauth-toolkit, with rotation, a grace period and reuse protection; and a provider
that asks its database about each token. Prints its URL; `python toolkit_server.py FOLDER LIFETIME GRACE`, both in seconds.

Whoever comes to /o/authorize/ is the one user there is, who agrees to everything. /control/… is for the test.
"""

import json
import pathlib
import socketserver
import sys
import threading
import wsgiref.simple_server

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import include, path

CLIENTS = {
    # Name: kind of client, and its secret.
    "toolkit-confidential": ("confidential", "secret-of-the-tests"),
    "toolkit-public": ("public", ""),
}

counts = {"requests": 0, "refused": 0}
lock = threading.Lock()


class EverybodyIsTheUser:
    """Logs everybody in, as the login page of the issuer would."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        from django.contrib.auth.models import User

        request.user = User.objects.get(username="person")
        return self.get_response(request)


def configure(folder, lifetime, grace):
    settings.configure(
        SECRET_KEY="of-the-tests",
        ALLOWED_HOSTS=["127.0.0.1"],
        USE_TZ=True,
        ROOT_URLCONF=__name__,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(pathlib.Path(folder) / "toolkit.sqlite3"),
                "OPTIONS": {"timeout": 20, "transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=wal;"},
            }
        },
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider",
        ],
        MIDDLEWARE=[f"{__name__}.EverybodyIsTheUser"],
        # For the clients' secrets: a fast one.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        OAUTH2_PROVIDER={
            "SCOPES": {"read": "Read"},
            "ACCESS_TOKEN_EXPIRE_SECONDS": lifetime,
            "ROTATE_REFRESH_TOKEN": True,
            "REFRESH_TOKEN_GRACE_PERIOD_SECONDS": grace,
            "REFRESH_TOKEN_REUSE_PROTECTION": True,
            "PKCE_REQUIRED": True,
        },
    )
    django.setup()
    call_command("migrate", verbosity=0)
    from django.contrib.auth.models import User
    from oauth2_provider.models import Application

    person = User.objects.create_user("person")
    for client, (kind, secret) in CLIENTS.items():
        Application.objects.create(
            name=client, client_id=client, client_secret=secret, client_type=kind, user=person,
            authorization_grant_type="authorization-code", redirect_uris="http://127.0.0.1/callback",
            skip_authorization=True,
        )


def message(request):
    """The provider: what was said, where the database knows the token."""
    from oauth2_provider.oauth2_backends import get_oauthlib_core

    valid, _ = get_oauthlib_core().verify_request(request, scopes=["read"])
    with lock:
        counts["requests"] += 1
        counts["refused"] += not valid
    if not valid:
        answer = JsonResponse({"type": "error", "error": {"type": "authentication_error", "message": "bad token"}}, status=401)
        answer["WWW-Authenticate"] = 'Bearer error="invalid_token"'
        return answer
    said = json.loads(request.body)["messages"][-1]["content"]
    return JsonResponse({"content": [{"type": "text", "text": f"You said: {said}"}]})


def stats(_):
    from oauth2_provider.models import RefreshToken

    with lock:
        told = dict(counts)
    told["refresh_tokens"] = RefreshToken.objects.count()
    told["live"] = RefreshToken.objects.filter(revoked=None).count()
    return JsonResponse(told)


def revoke(request):
    """What an administrator does: the person's tokens of one client end."""
    from oauth2_provider.models import RefreshToken

    tokens = RefreshToken.objects.filter(application__client_id=request.GET["client"])
    for family in set(tokens.values_list("token_family", flat=True)):
        RefreshToken.revoke_family(family)
    return JsonResponse({})


def grace(request):
    """Changes the grace period; later requests go by it."""
    from oauth2_provider.settings import oauth2_settings

    oauth2_settings.REFRESH_TOKEN_GRACE_PERIOD_SECONDS = int(request.GET["is"])
    return JsonResponse({})


# What ROOT_URLCONF names; filled once Django is set up.
urlpatterns = []


class Server(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    daemon_threads = True


class Quiet(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, *_):
        pass


def main():
    folder, lifetime, grace_seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    configure(folder, lifetime, grace_seconds)
    urlpatterns.extend([
        path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
        path("v1/messages", message),
        path("control/stats", stats),
        path("control/revoke", revoke),
        path("control/grace", grace),
    ])
    server = Server(("127.0.0.1", 0), Quiet)
    server.set_app(get_wsgi_application())
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
