// The one place where text becomes a part of the page: only the server's own fragments, which it has escaped. The policy of
// the page (Trusted Types) refuses every other place, in the browsers that know it.

const policy = globalThis.trustedTypes?.createPolicy("dermserve", { createHTML: (html) => html }) ?? {
  createHTML: (html) => html,
};

/**
 * @param {string} html of the portal's answer to an upload
 * @returns {DocumentFragment}
 */
export function toFragment(html) {
  return document.createRange().createContextualFragment(policy.createHTML(html));
}
