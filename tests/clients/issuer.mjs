// A real OAuth issuer (oidc-provider, refresh rotation and reuse detection on) and, beside it, a model
// provider that accepts the issuer's currently valid access tokens and nothing else.
//
// node issuer.mjs LIFETIME_SECONDS [SLACK_SECONDS]   prints its URL on the first line.
//
// With slack, access tokens are good for so much longer than the issuer says, since oidc-provider counts in
// whole seconds, and the provider counts those that come late: after the token request's arrival plus the
// answer's expires_in, which whoever asked for it can't count from later. A request that its client began
// (`x-begun`, milliseconds since 1970) before that was under way when the token ended; any other was sent with
// an expired token.
// Whoever sends a token may name itself by `x-host`.

import http from 'node:http';
import Provider from 'oidc-provider';

let lifetime = Number(process.argv[2] ?? 4);
const slack = Number(process.argv[3] ?? 0);
// One client for each way to show who it is; all have the same secret but the public one.
const client = (client_id, token_endpoint_auth_method, more = {}) => ({
  client_id,
  ...(token_endpoint_auth_method === 'none' ? {} : { client_secret: 'secret-of-the-tests' }),
  grant_types: ['authorization_code', 'refresh_token'],
  redirect_uris: ['https://client.example/callback'],
  response_types: ['code'],
  token_endpoint_auth_method,
  ...more,
});
const clients = [
  client('evertoken-tests', 'client_secret_post'),
  client('evertoken-basic', 'client_secret_basic'),
  client('evertoken-public', 'none'),
  client('evertoken-machine', 'client_secret_post', {
    grant_types: ['client_credentials'], redirect_uris: [], response_types: [], scope: 'read',
  }),
  // What `evertoken login` is: a program on somebody's machine, with a port of its own (RFC 8252).
  client('evertoken-login', 'none', {
    application_type: 'native',
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    redirect_uris: ['http://127.0.0.1/callback', 'https://client.example/callback'],
  }),
];
// What the issuer serves itself; everything else is the provider's.
const OWN = /^\/(token|auth|interaction|device|reg|\.well-known)(\/|$)/;
const stats = { requests: 0, refused: 0, late: 0, sentExpired: 0, reuses: 0, rotations: 0, failed: 0, failedOnPurpose: 0 };
// When each access token ends by what its client was told, in milliseconds since 1970.
const expiries = new Map();
// The refresh tokens that were used up; one that comes once more is a reuse.
const usedUp = new Set();
// When each host first sent which access token: { host, first, expires, previous }, where `previous` is when
// the token issued before ended.
const uses = [];
let lastExpiry = 0;
// Token requests stop `before` they are looked at or `after` they are done, the answer unsent, until they are let go.
let hold = 'no';
let held;
// When the last rotation was done and its answer was about to leave, in milliseconds since 1970. The
// client may be gone by then.
let lastRotation = 0;
// How the provider behaves: fine, a status, reset, credit (used up) or stream (one that begins with an error).
let mode = 'fine';
let refusedModel = '';
let retryAfter = '1';

const server = http.createServer();
server.listen(0, '127.0.0.1', () => {
  const url = `http://127.0.0.1:${server.address().port}`;
  const issuer = new Provider(url, {
    clients,
    scopes: ['openid', 'offline_access', 'read'],
    features: {
      clientCredentials: { enabled: true }, deviceFlow: { enabled: true }, devInteractions: { enabled: true },
      registration: { enabled: true }, revocation: { enabled: true },
      // A token for a named resource (RFC 8707) is good there and nowhere else.
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({ scope: 'read', audience: resource, accessTokenTTL: lifetime + slack }),
      },
    },
    rotateRefreshToken: true,
    ttl: { AccessToken: () => lifetime + slack, ClientCredentials: lifetime, RefreshToken: 86400, Grant: 86400, IdToken: 3600 },
    findAccount: (_, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
  });
  issuer.on('grant.success', () => {
    stats.rotations += 1;
    lastRotation = Date.now();
  });
  issuer.use(async (context, next) => {
    if (context.path !== '/token') return next();
    const arrived = Date.now();
    await stop('before', context);
    await next();
    const presented = context.oidc?.params?.refresh_token;
    if (context.body?.expires_in) {
      const expires = arrived + lifetime * 1000;
      context.body.expires_in = lifetime;
      expiries.set(context.body.access_token, { expires, previous: lastExpiry });
      lastExpiry = expires;
      if (presented) usedUp.add(presented);
    } else if (usedUp.has(presented)) {
      stats.reuses += 1;
    }
    await stop('after', context);
  });
  issuer.on('grant.error', () => {
    stats.failed += 1;
  });
  const callback = issuer.callback();
  server.on('request', (request, response) => {
    serve(issuer, callback, request, response).catch((error) => {
      console.error(error);
      response.destroy();
    });
  });
  console.log(url);
});

// Holds a token request where that is asked for. Where it is let go as `lost`, it never arrived, or its answer
// never left.
async function stop(where, context) {
  if (hold !== where) return;
  hold = 'no';
  const end = await new Promise((resolve) => {
    held = resolve;
  });
  held = undefined;
  if (end === 'lost') context.req.socket.destroy();
  if (end === 'lost' && where === 'before') throw new Error('lost on purpose');
}

async function serve(issuer, callback, request, response) {
  const path = request.url.split('?')[0];
  if (OWN.test(path)) {
    return callback(request, response);
  }
  const query = new URL(request.url, 'http://localhost').searchParams;
  if (path === '/control/login') {
    const clientId = query.get('client') ?? 'evertoken-tests';
    return json(response, 200, { refresh_token: await login(issuer, clientId) });
  }
  if (path === '/control/lifetime') {
    lifetime = Number(query.get('is'));
    return json(response, 200, { lifetime });
  }
  if (path === '/control/mode') {
    mode = query.get('is');
    retryAfter = query.get('after') ?? '1';
    refusedModel = query.get('model') ?? '';
    return json(response, 200, { mode });
  }
  if (path === '/control/hold') {
    hold = query.get('is');
    return json(response, 200, { hold });
  }
  if (path === '/control/held') return json(response, 200, { held: held !== undefined });
  if (path === '/control/release') {
    held?.(query.get('as'));
    return json(response, 200, {});
  }
  if (path === '/control/token') {
    const token = await issuer.AccessToken.find(query.get('is'));
    return json(response, 200, { valid: token?.isValid ?? false, aud: token?.aud, scope: token?.scope, client: token?.clientId });
  }
  if (path === '/control/stats') return json(response, 200, { ...stats, lastRotation });
  if (path === '/control/uses') return json(response, 200, uses);
  return provider(issuer, path, request, response);
}

// What a login in a browser would end with.
async function login(issuer, clientId) {
  const grant = new issuer.Grant({ accountId: 'user', clientId });
  grant.addOIDCScope('openid offline_access');
  const grantId = await grant.save();
  const token = new issuer.RefreshToken({
    accountId: 'user',
    client: await issuer.Client.find(clientId),
    grantId,
    gty: 'authorization_code',
    scope: 'openid offline_access',
    claims: {},
  });
  return token.save();
}

async function provider(issuer, path, request, response) {
  const arrived = Date.now();
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  stats.requests += 1;
  if (mode === 'reset') return request.socket.resetAndDestroy();
  if (mode === 'used up') {
    // As a subscription says it with its last answer before the limit.
    response.setHeader('anthropic-ratelimit-unified-5h-utilization', '1.0');
    response.setHeader('anthropic-ratelimit-unified-5h-reset', String(Math.floor(arrived / 1000) + 3600));
  } else if (mode !== 'fine') {
    stats.failedOnPurpose += 1;
    response.setHeader('retry-after', retryAfter);
    if (mode === 'credit') {
      const message = 'Your credit balance is too low to access the API.';
      return json(response, 400, { type: 'error', error: { type: 'invalid_request_error', message } });
    }
    if (mode === 'stream') {
      // An overload that shows only once the stream has begun.
      const error = { type: 'error', error: { type: 'overloaded_error', message: 'Overloaded' } };
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      return response.end(`event: error\ndata: ${JSON.stringify(error)}\n\n`);
    }
    const message = refusedModel ? `Rate limit reached for ${refusedModel} on purpose` : 'on purpose';
    return json(response, Number(mode), { type: 'error', error: { type: 'overloaded_error', message } });
  }
  const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  const token = bearer
    ? ((await issuer.AccessToken.find(bearer)) ?? (await issuer.ClientCredentials.find(bearer)))
    : undefined;
  if (!token?.isValid) {
    stats.refused += 1;
    return json(response, 401, {
      type: 'error',
      error: { type: 'authentication_error', message: 'OAuth access token has expired' },
    });
  }
  note(bearer, arrived, request.headers);
  const asked = JSON.parse(Buffer.concat(chunks).toString() || '{}');
  const text = `You said: ${asked.messages?.at(-1)?.content ?? 'nothing'}`;
  const anthropic = path === '/v1/messages';
  if (!asked.stream) return json(response, 200, anthropic ? message(text) : completion(text));
  response.writeHead(200, { 'content-type': 'text/event-stream' });
  for (const event of anthropic ? messageEvents(text) : completionEvents(text)) {
    response.write(event);
    await new Promise((resolve) => setTimeout(resolve, 15));
  }
  response.end();
}

// Notes that a token was used, and whether it came late.
function note(bearer, arrived, headers) {
  const { expires, previous } = expiries.get(bearer) ?? { expires: Infinity, previous: 0 };
  const host = headers['x-host'];
  if (host && !uses.some((use) => use.host === host && use.expires === expires)) {
    uses.push({ host, first: arrived, expires, previous });
  }
  if (arrived <= expires) return;
  stats.late += 1;
  const begun = Number(headers['x-begun'] ?? Infinity);
  if (!(begun < expires)) stats.sentExpired += 1;
}

function json(response, status, value) {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(JSON.stringify(value));
}

const message = (text) => ({
  id: 'msg_1', type: 'message', role: 'assistant', model: 'm', stop_reason: 'end_turn',
  stop_sequence: null, content: [{ type: 'text', text }], usage: { input_tokens: 1, output_tokens: 1 },
});

function* messageEvents(text) {
  const event = (data) => `event: ${data.type}\ndata: ${JSON.stringify(data)}\n\n`;
  yield event({ type: 'message_start', message: { ...message(''), content: [], stop_reason: null } });
  yield event({ type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } });
  for (const piece of text.split(/(?<= )/)) {
    yield event({ type: 'content_block_delta', index: 0, delta: { type: 'text_delta', text: piece } });
  }
  yield event({ type: 'content_block_stop', index: 0 });
  yield event({
    type: 'message_delta', delta: { stop_reason: 'end_turn', stop_sequence: null },
    usage: { output_tokens: 1 },
  });
  yield event({ type: 'message_stop' });
}

const completion = (text) => ({
  id: 'c1', object: 'chat.completion', created: 0, model: 'm',
  choices: [{ index: 0, finish_reason: 'stop', message: { role: 'assistant', content: text } }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 },
});

function* completionEvents(text) {
  const event = (delta, finish) => `data: ${JSON.stringify({
    id: 'c1', object: 'chat.completion.chunk', created: 0, model: 'm',
    choices: [{ index: 0, delta, finish_reason: finish }],
  })}\n\n`;
  yield event({ role: 'assistant', content: '' }, null);
  for (const piece of text.split(/(?<= )/)) yield event({ content: piece }, null);
  yield event({}, 'stop');
  yield 'data: [DONE]\n\n';
}
