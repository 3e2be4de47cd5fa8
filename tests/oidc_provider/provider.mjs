// A real OpenID Connect provider on loopback: node provider.mjs MODULES PORT GATEWAY_URL. Anybody gets in; what stands before
// the hyphen of the login name is the role, as in clinician-7.

import { createRequire } from "node:module";

const [modules, port, gateway] = process.argv.slice(2);
const { Provider } = createRequire(`${modules}/`)("oidc-provider");

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "dermserve",
      client_secret: "a-secret-of-the-tests",
      redirect_uris: [`${gateway}/sign-in/callback`],
      post_logout_redirect_uris: [`${gateway}/signed-out`],
    },
  ],
  findAccount: (context, id) => ({
    accountId: id,
    claims: () => ({ sub: id, roles: [id.split("-")[0], "another-application"] }),
  }),
  claims: { openid: ["sub", "roles"] },
  // Roles in the ID token, as hospitals' providers are set up, and not behind one more request.
  conformIdTokenClaims: false,
  cookies: { keys: ["a-cookie-key-of-the-tests"] },
  pkce: { required: () => true },
});

provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
