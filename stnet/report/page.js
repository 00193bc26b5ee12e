"use strict";
(() => {
  const ROWS = 25;
  const names = JSON.parse(document.getElementById("names").textContent);
  const collator = new Intl.Collator("en", { numeric: true });
  const texts = {
    text: String,
    class: i => names[i],
    count: n => n.toLocaleString("en"),
    share: n => (100 * n).toFixed(1) + "%",
    number: n => n.toFixed(4),
  };
  const textOf = (value, kind) => (value === null ? "–" : texts[kind](value));

  function fill(box) {
    const { kinds, rows, differ } = JSON.parse(box.querySelector("script").textContent);
    const [search, wrongOnly] = ["search", "checkbox"].map(type => box.querySelector(`input[type=${type}]`));
    const heads = [...box.querySelectorAll("th")];
    const isWrong = row => differ && row[differ[0]] !== row[differ[1]];
    let chosen = rows, first = 0, column = -1, sign = 1, haystacks = null;

    function choose() {
      const needle = search ? search.value.trim().toLowerCase() : "";
      if (needle && !haystacks) {
        const words = kinds.flatMap((kind, i) => (kind === "text" || kind === "class" ? [i] : []));
        haystacks = new Map(rows.map(row => [row, words.map(i => textOf(row[i], kinds[i])).join("\n").toLowerCase()]));
      }
      chosen = rows.filter(row => (!needle || haystacks.get(row).includes(needle)) && !(wrongOnly?.checked && !isWrong(row)));
      if (column >= 0) sort();
      first = 0;
      show();
    }

    function sort() {
      const isText = kinds[column] === "text" || kinds[column] === "class";
      const text = value => textOf(value, kinds[column]);
      chosen.sort(({ [column]: a }, { [column]: b }) => {
        if (a === null || b === null) return (a === null) - (b === null); // last, whichever the direction
        return sign * (isText ? collator.compare(text(a), text(b)) : a - b);
      });
    }

    function show() {
      const page = chosen.slice(first, first + ROWS);
      box.querySelector("tbody").replaceChildren(...page.map(row => {
        const line = document.createElement("tr");
        if (isWrong(row)) line.className = "wrong";
        row.forEach((value, i) => {
          const cell = line.insertCell();
          cell.className = kinds[i];
          cell.dir = "auto";
          cell.textContent = textOf(value, kinds[i]);
          if (kinds[i] === "share" && value !== null) cell.style.setProperty("--share", value);
        });
        return line;
      }));
      if (!box.querySelector("output")) return;
      const last = Math.min(first + ROWS, chosen.length);
      box.querySelector("output").textContent = chosen.length
        ? `${texts.count(first + 1)}–${texts.count(last)} of ${texts.count(chosen.length)}` : "none";
      box.querySelectorAll("[data-turn]").forEach(button => {
        button.disabled = button.dataset.turn < 0 ? !first : last === chosen.length;
      });
    }

    heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {
      sign = column === i ? -sign : 1;
      column = i;
      heads.forEach(other => other.setAttribute("aria-sort", "none"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      choose();
    }));
    search?.addEventListener("input", choose);
    wrongOnly?.addEventListener("change", choose);
    box.querySelectorAll("[data-turn]").forEach(button => button.addEventListener("click", () => {
      first += ROWS * button.dataset.turn;
      show();
    }));
    choose();
    return rows;
  }

  const rows = new Map([...document.querySelectorAll("[data-table]")].map(box => [box.dataset.table, fill(box)]));
  document.querySelectorAll("figure.matrix img").forEach(image => {
    const size = image.dataset.classes, cells = new Map();
    for (const [, label, prediction] of rows.get("clips")) {
      if (prediction === null) continue;
      const cell = label * size + prediction;
      cells.set(cell, (cells.get(cell) || 0) + 1);
    }
    image.addEventListener("pointermove", event => {
      const { left, top, width, height } = image.getBoundingClientRect();
      const place = share => Math.min(size - 1, Math.max(0, Math.floor(share * size)));
      const [label, prediction] = [place((event.clientY - top) / height), place((event.clientX - left) / width)];
      const clips = cells.get(label * size + prediction) || 0;
      image.parentElement.querySelector("output").textContent =
        `${names[label]} → ${names[prediction]}: ${texts.count(clips)} clips`;
    });
  });
})();
