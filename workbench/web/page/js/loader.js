// Fetches the page's own files, and refuses one whose hash is not the one that the export wrote down.

async function fetched(path, integrity) {
  const response = await fetch(path, { integrity, cache: "no-cache" });
  if (!response.ok) throw new Error(`${path} is missing (${response.status})`);
  return response;
}

export async function openFolder() {
  const sealed = document.documentElement.dataset.manifest;
  const { integrity } = await (await fetched("data/manifest.json", sealed)).json();
  const get = (path) => fetched(path, integrity[path]);
  return {
    json: async (path) => (await get(path)).json(),
    bytes: async (path) => new Uint8Array(await (await get(path)).arrayBuffer()),
  };
}
