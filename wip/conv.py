"""python3 conv.py out|in NN…: notebook ↔ text. A cell begins with a line %%md, %%code or %%code tag1,tag2."""

import glob, json, sys

mode, names = sys.argv[1], sys.argv[2:]
for n in names:
    path = glob.glob(f"/tmp/world/notebooks/{n}_*.ipynb")[0]
    nb = json.load(open(path))
    if mode == "out":
        parts = []
        for c in nb["cells"]:
            tags = ",".join(c["metadata"].get("tags", []))
            head = "%%md" if c["cell_type"] == "markdown" else ("%%code" + (f" {tags}" if tags else ""))
            parts.append(head + "\n" + "".join(c["source"]).strip("\n"))
        open(f"/tmp/nbs/{n}.txt", "w").write("\n\n".join(parts) + "\n")
    else:
        cells, cur = [], None
        for line in open(f"/tmp/nbs/{n}.txt").read().split("\n"):
            if line.startswith("%%md") or line.startswith("%%code"):
                cur = [line, []]
                cells.append(cur)
            elif cur:
                cur[1].append(line)
        new = []
        for i, (head, lines) in enumerate(cells):
            text = "\n".join(lines).strip("\n")
            source = [l + "\n" for l in text.split("\n")]
            source[-1] = source[-1].rstrip("\n")
            tags = head.split(" ", 1)[1].split(",") if " " in head else []
            meta = {"tags": tags} if tags else {}
            cell = {
                "cell_type": "markdown" if head == "%%md" else "code",
                "id": f"c{n}{i:03d}",
                "metadata": meta,
                "source": source,
            }
            if head != "%%md":
                cell |= {"execution_count": None, "outputs": []}
            new.append(cell)
        nb["cells"] = new
        json.dump(nb, open(path, "w"), indent=1, ensure_ascii=False)
        open(path, "a").write("\n")
