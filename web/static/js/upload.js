// One upload with progress, for which fetch has no event.

/** The answer did not come from the portal: no connection, or something in between answered. */
export class NoConnection extends Error {}

/**
 * Posts a form and gives the fragment of a page that the portal answers with.
 *
 * @param {string} url
 * @param {FormData} body
 * @param {{signal: AbortSignal, onProgress: (share: number) => void, onSent: () => void}} options
 * @returns {Promise<{ok: boolean, html: string}>} rejects with NoConnection, or with an AbortError
 */
export function upload(url, body, { signal, onProgress, onSent }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", url);
    request.setRequestHeader("X-Fragment", "1");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.upload.onload = onSent;
    request.onload = () => {
      if (request.getResponseHeader("X-Fragment")) {
        resolve({ ok: request.status === 200, html: request.responseText });
      } else {
        reject(new NoConnection());
      }
    };
    request.onerror = () => reject(new NoConnection());
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}
