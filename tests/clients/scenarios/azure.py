"""The AzureOpenAI client, with a deployment and with the newer paths under /openai/v1."""

import openai

HOST = "YOUR-RESOURCE.openai.azure.com"
MESSAGES = [{"role": "user", "content": "hello there"}]


def converse(client):
    whole = client.chat.completions.create(model="own-deployment", messages=MESSAGES)
    stream = client.chat.completions.create(model="own-deployment", messages=MESSAGES, stream=True)
    pieces = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    vectors = client.embeddings.create(model="own-deployment", input="hello", encoding_format="float")
    said = whole.choices[0].message.content
    assert said == pieces == "You said: hello there", (said, pieces)
    return said, len(vectors.data)


def deployments(side):
    with openai.AzureOpenAI(
        azure_endpoint=side.provider, api_key=side.credential, api_version="2024-10-21", max_retries=0
    ) as client:
        return converse(client)


def newer_paths(side):
    with openai.OpenAI(base_url=side.provider + "/openai/v1", api_key=side.credential, max_retries=0) as client:
        return converse(client)


def answers(world):
    """By the sandbox, whose paths are those of OpenAI."""

    def script(record):
        path = record.rest.partition("?")[0].removeprefix("/openai")
        return world.from_sandbox(record, path.replace("/deployments/own-deployment", "/v1"))

    return script


AZURE = {"host": HOST, "script": answers}
SAYS = 'AzureOpenAI(azure_endpoint="http://127.0.0.1:8080/to/azure", api_key="none", api_version="2024-10-21")'
SCENARIOS = [
    {
        "name": "AzureOpenAI, with a key", "slug": "azure", "run": deployments, "credential": ("api-key", "api-key"),
        "says": (SAYS,), **AZURE,
    },
    {
        "name": "AzureOpenAI, with Entra ID", "slug": "azure-entra", "run": deployments,
        "credential": ("api-key", "authorization"), **AZURE,
    },
    {
        "name": "the OpenAI client at Azure's /openai/v1", "slug": "azure-entra", "run": newer_paths,
        "added_query": "api-version=2024-10-21", "says": ("http://127.0.0.1:8080/to/azure/openai/v1",), **AZURE,
    },
]
