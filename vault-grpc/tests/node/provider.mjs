// An identity provider for tests: it signs people in as the test says, and prints what they get.
//
//   node provider.mjs NODE_MODULES
//
// First line of stdout: {"issuer": …}. Then one line of JSON for each line of stdin:
//   {"do": "token", "sub", "tenant", "roles", "amr", "acr", "cert"}  → {"access_token", "id_token"}
//   {"do": "rotate"}                                                 → {"kid"}, a new key in the place of the old one
// It ends with its stdin.

import { obey, open } from "./oidc.mjs";

// Whoever signs in next.
let person;
const { issuer, rotate, token } = await open(() => person);
await obey(issuer, (wish) => {
  if (wish.do === "rotate") return rotate();
  person = wish;
  return token(wish.cert);
});
