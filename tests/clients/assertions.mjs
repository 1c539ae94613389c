// A real OAuth issuer (oidc-provider) behind TLS that asks for client certificates, with one client for each way to
// authenticate without sending a secret, and beside it an API that takes the issuer's tokens.
//
// node assertions.mjs FOLDER   prints its URL on the first line. FOLDER has the server's certificate (server.crt,
// server.key), the authority of client certificates (ca.crt), and a public key or certificate for each client.

import crypto from 'node:crypto';
import fs from 'node:fs';
import https from 'node:https';
import path from 'node:path';
import { compactVerify, importJWK } from 'jose';
import Provider, { errors } from 'oidc-provider';

const folder = process.argv[2];
const read = (name) => fs.readFileSync(path.join(folder, name), 'utf8');
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const SECRET = 'secret-of-the-tests-that-is-long-enough-for-hs256';

const jwk = (file, more = {}) => ({ ...crypto.createPublicKey(read(file)).export({ format: 'jwk' }), use: 'sig', ...more });
const der = (file) => new crypto.X509Certificate(read(file)).raw.toString('base64');
const client = (client_id, token_endpoint_auth_method, more = {}) => ({
  client_id, token_endpoint_auth_method, grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
  scope: 'read', ...more,
});
const withKey = (name, alg) => client(name, 'private_key_jwt', {
  jwks: { keys: [jwk(`${name}.pub`, { alg, kid: 'key-1' })] }, token_endpoint_auth_signing_alg: alg,
});
const clients = [
  withKey('rsa-pkcs1', 'RS256'), withKey('rsa-pkcs8', 'RS256'), withKey('rsa-pss', 'PS256'), withKey('p256-sec1', 'ES256'),
  withKey('p256-pkcs8', 'ES256'), withKey('p384', 'ES384'), withKey('ed25519', 'EdDSA'),
  client('hmac', 'client_secret_jwt', { client_secret: SECRET, token_endpoint_auth_signing_alg: 'HS256' }),
  client('tls-ca', 'tls_client_auth', {
    tls_client_auth_subject_dn: 'CN=tls-ca', tls_client_certificate_bound_access_tokens: true,
  }),
  client('tls-self', 'self_signed_tls_client_auth', {
    jwks: { keys: ['tls-self.crt', 'tls-self-2.crt'].map((file) => ({ ...jwk(file), x5c: [der(file)] })) },
  }),
  client('exchange', 'none', { grant_types: [TOKEN_EXCHANGE] }),
  client('robot', 'none', { grant_types: [JWT_BEARER] }),
];
// Requests to the API, and how many of their tokens were good; identifiers of assertions that came already.
const stats = { granted: 0, served: 0, refused: 0 };
const identifiers = new Set();

const server = https.createServer({
  cert: read('server.crt'), key: read('server.key'), requestCert: true, rejectUnauthorized: false, ca: read('ca.crt'),
});
server.listen(0, '127.0.0.1', () => {
  const url = `https://localhost:${server.address().port}`;
  const certificate = (context) => context.req.socket.getPeerX509Certificate();
  const issuer = new Provider(url, {
    clients,
    scopes: ['read'],
    clientAuthMethods: [
      'none', 'private_key_jwt', 'client_secret_jwt', 'tls_client_auth', 'self_signed_tls_client_auth',
    ],
    enabledJWA: { clientAuthSigningAlgValues: ['HS256', 'RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] },
    features: {
      clientCredentials: { enabled: true }, devInteractions: { enabled: false },
      mTLS: {
        enabled: true, certificateBoundAccessTokens: true, tlsClientAuth: true, selfSignedTlsClientAuth: true,
        getCertificate: (context) => certificate(context)?.toString(),
        certificateAuthorized: (context) => context.req.socket.authorized,
        certificateSubjectMatches: (context, property, expected) =>
          property === 'tls_client_auth_subject_dn' && certificate(context).subject === expected,
      },
    },
    ttl: { ClientCredentials: 3600 },
  });
  // The grants of RFC 7523 and RFC 8693, for which oidc-provider leaves the judgement to its user.
  const grant = (name, parameters, judge) => issuer.registerGrantType(name, async (context) => {
    await judge(context.oidc.params, url).catch((error) => { throw new errors.InvalidGrant(error.message); });
    const token = new issuer.ClientCredentials({ client: context.oidc.client, scope: 'read' });
    context.body = { access_token: await token.save(), expires_in: token.expiration, token_type: 'Bearer' };
  }, parameters);
  grant(JWT_BEARER, ['assertion'], async ({ assertion }) => {
    const claims = await verified(assertion, 'p256-sec1.pub', 'ES256');
    expect(claims.iss === 'robot' && claims.sub === 'somebody' && claims.aud === `${url}/token`, 'the claims');
    expect(claims.iat <= Date.now() / 1000 - 29 && claims.exp === claims.iat + 120, 'the times');
    expect(!identifiers.has(claims.jti), 'a new jti');
    identifiers.add(claims.jti);
  });
  grant(TOKEN_EXCHANGE, ['subject_token', 'subject_token_type', 'audience'], async (parameters) => {
    expect(parameters.subject_token_type === 'urn:ietf:params:oauth:token-type:jwt', 'the type');
    expect(parameters.audience === 'the-api', 'the audience');
    const claims = await verified(parameters.subject_token, 'platform.pub', 'RS256');
    expect(claims.exp > Date.now() / 1000, 'a subject token that has not ended');
  });
  issuer.on('grant.success', () => { stats.granted += 1; });
  issuer.on('server_error', (context, error) => console.error(error));
  issuer.on('grant.error', (context, error) => console.error(error.error_detail ?? error.error_description ?? error));
  const callback = issuer.callback();
  server.on('request', (request, response) => {
    if (request.url === '/control/stats') return response.end(JSON.stringify(stats));
    if (!request.url.startsWith('/api/')) return callback(request, response);
    return api(issuer, request, response);
  });
  console.log(url);
});

function expect(is, what) {
  if (!is) throw new Error(`not as expected: ${what}`);
}

async function verified(token, file, alg) {
  const { payload } = await compactVerify(token, await importJWK(jwk(file), alg), { algorithms: [alg] });
  return JSON.parse(Buffer.from(payload).toString());
}

// Takes a token that is bound to a certificate only over a connection that shows that certificate (RFC 8705 §3).
async function api(issuer, request, response) {
  const bearer = (request.headers.authorization ?? '').replace(/^Bearer /, '');
  const token = await issuer.ClientCredentials.find(bearer);
  const bound = token?.['x5t#S256'];
  const shown = request.socket.getPeerX509Certificate();
  const print = shown && crypto.createHash('sha256').update(shown.raw).digest('base64url');
  const isGood = token?.isValid && (!bound || bound === print);
  stats[isGood ? 'served' : 'refused'] += 1;
  response.writeHead(isGood ? 200 : 401, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ client: token?.clientId, bound: Boolean(bound) }));
}
