// The page's tables, curves and flame graph, from the JSON in it. What comes from a target is set as text, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { frames, words, groups, moments } = data;
  const at = id => document.getElementById(id);
  const STEP = 100;

  // An element with a class and content: texts and elements.
  const make = (name, className, ...content) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    element.append(...content);
    return element;
  };
  const drawn = (name, attributes, ...content) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...content);
    return element;
  };

  const grouped = number => Math.round(number).toString().replace(/\B(?=(\d{3})+$)/g, ",");
  const binary = bytes => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let size = Math.abs(bytes), unit = 0;
    while (size >= 1023.995 && unit + 1 < units.length) { size /= 1024; unit++; }
    return (bytes < 0 ? "\u2212" : "") + (unit ? size.toFixed(2) : Math.round(size)) + " " + units[unit];
  };
  const hex = number => "0x" + number.toString(16);
  const percent = (part, whole) => (whole ? part / whole * 100 : 0).toFixed(1) + " %";
  const plural = (count, what) => grouped(count) + " " + what + (count === 1 ? "" : "s");
  const signed = (number, write) => number > 0 ? "+" + write(number) : write(number);
  const amount = { bytes: binary, blocks: count => plural(count, "block") };
  const measures = ["bytes", "blocks"];
  const sumOf = (list, measure) => list.reduce((sum, one) => sum + one[measure], 0);
  const total = { bytes: sumOf(groups, "bytes"), blocks: sumOf(groups, "blocks") };

  // Two buttons of which one is pressed.
  const choice = (place, chosen) => {
    let measure = measures[0];
    const buttons = measures.map(name => {
      const button = make("button", "", "by " + name);
      button.type = "button";
      button.addEventListener("click", () => { measure = name; show(); chosen(name); });
      return button;
    });
    const show = () => buttons.forEach((button, index) =>
      button.setAttribute("aria-pressed", String(measures[index] === measure)));
    show();
    place.append(...buttons);
  };

  // ---- Growth -------------------------------------------------------------------------------------------------------

  const nameOf = group => words[group.driver] + ": " + callerOf(group);
  const callerOf = group => group.path.length ? frameName(group.path[0]) : words[group.stack[0]];
  const frameName = index => words[frames[index][1]];
  const grew = group => group.history[group.history.length - 1][0] - group.history[0][0];

  const drawGrowth = measure => {
    const [left, right, top, bottom, width, height] = [92, 16, 12, 30, 1100, 300];
    const column = measure === "bytes" ? 0 : 1;
    const fastest = groups.filter(group => grew(group) > 0).sort((a, b) => grew(b) - grew(a)).slice(0, 5);
    const series = [{ name: "all", points: moments.map(moment => moment[measure]) }]
      .concat(fastest.map(group => ({ name: nameOf(group), points: group.history.map(held => held[column]) })));
    const most = Math.max(1, ...series[0].points);
    const first = moments[0].ms, span = Math.max(1, moments[moments.length - 1].ms - first);
    const x = index => left + (moments[index].ms - first) / span * (width - left - right);
    const y = value => height - bottom - value / most * (height - top - bottom);
    const chart = at("chart");
    chart.replaceChildren();
    for (let line = 0; line <= 4; line++) {
      const value = most * line / 4;
      chart.append(drawn("line", { class: "rule", x1: left, x2: width - right, y1: y(value), y2: y(value) }),
        drawn("text", { x: left - 8, y: y(value) + 4, "text-anchor": "end" }, measure === "bytes" ? binary(value) : grouped(value)));
    }
    // Names of moments stand only where they don't run into each other.
    let free = -Infinity;
    moments.forEach((moment, index) => {
      const anchor = index === 0 ? "start" : index === moments.length - 1 ? "end" : "middle";
      const from = x(index) - (anchor === "start" ? 0 : anchor === "end" ? 90 : 45);
      const isLast = index === moments.length - 1;
      if (from > free && (isLast || x(index) + 60 < width - right - 90)) {
        chart.append(drawn("text", { x: x(index), y: height - 8, "text-anchor": anchor }, moment.clock));
        free = from + 100;
      }
    });
    series.forEach((one, color) => {
      const points = one.points.map((value, index) => x(index).toFixed(1) + "," + y(value).toFixed(1)).join(" ");
      chart.append(drawn("polyline", { class: "series s" + color, points, "fill-opacity": 0 }));
      one.points.forEach((value, index) => chart.append(drawn("circle", { class: "s" + color, cx: x(index), cy: y(value), r: 3 },
        drawn("title", {}, one.name + "\n" + moments[index].text + "\n" + amount[measure](value)))));
    });
    at("chart-legend").replaceChildren(...series.map((one, color) => {
      const from = one.points[0], to = one.points[one.points.length - 1];
      return make("li", "", drawn("svg", { viewBox: "0 0 14 10", "aria-hidden": "true" },
        drawn("rect", { class: "s" + color, x: 0, y: 3, width: 14, height: 4 })),
      one.name + " (" + signed(to - from, amount[measure]) + ")");
    }));
  };

  // ---- Flame graph --------------------------------------------------------------------------------------------------

  const root = { name: "all", kind: "all", parent: null, depth: 0, children: new Map(), bytes: 0, blocks: 0 };
  const kindOf = (group, name, depth) => {
    if (depth === 1) return "own";
    const end = name.indexOf("!");
    if (name.startsWith("[") || (end < 0 && name.startsWith("0x"))) return "unknown";
    const module = (end < 0 ? name : name.slice(0, end)).toLowerCase();
    if (module === words[group.driver].replace(/\.[^.]*$/, "").toLowerCase()) return "own";
    return module === "nt" ? "" : "other";
  };
  for (const group of groups) {
    let node = root;
    root.bytes += group.bytes;
    root.blocks += group.blocks;
    for (const word of [group.driver, ...group.stack]) {
      let next = node.children.get(word);
      if (!next) {
        const name = words[word], depth = node.depth + 1;
        next = { name, kind: kindOf(group, name, depth), parent: node, depth, children: new Map(), bytes: 0, blocks: 0 };
        node.children.set(word, next);
      }
      next.bytes += group.bytes;
      next.blocks += group.blocks;
      node = next;
    }
  }
  const flame = { measure: "bytes", top: root, current: null, shown: new Map(), found: "" };
  const tell = node => {
    const { measure } = flame;
    at("told").textContent = node.name + ": " + amount[measure](node[measure]) +
      (measure === "bytes" ? " (" + hex(node.bytes) + ")" : "") + ", " + percent(node[measure], root[measure]) + ", " +
      amount[measures[1 - measures.indexOf(measure)]](node[measures[1 - measures.indexOf(measure)]]);
  };
  const isFound = node => !flame.found || node.name.toLowerCase().includes(flame.found);

  const drawFlame = focus => {
    const { measure, top } = flame;
    const box = at("flame");
    const rows = [];
    for (let node = top; node; node = node.parent) rows.unshift({ node, from: 0, width: 1, isAbove: node !== top });
    let deepest = top.depth, narrow = 0;
    const queue = [rows[rows.length - 1]];
    while (queue.length) {
      const { node, from, width } = queue.pop();
      let start = from;
      const children = [...node.children.values()].sort((a, b) => b[measure] - a[measure] || (a.name < b.name ? -1 : 1));
      for (const child of children) {
        const share = node[measure] ? child[measure] / node[measure] * width : 0;
        if (share < 0.0008) { narrow++; continue; }
        const row = { node: child, from: start, width: share, isAbove: false };
        rows.push(row);
        queue.push(row);
        start += share;
        deepest = Math.max(deepest, child.depth);
      }
    }
    flame.shown = new Map();
    const elements = rows.map(({ node, from, width, isAbove }) => {
      const button = make("button", "frame " + node.kind, node.name);
      button.type = "button";
      button.tabIndex = -1;
      if (width < 0.01) { button.classList.add("narrow"); button.textContent = ""; }
      if (isAbove) button.classList.add("above");
      if (!isFound(node)) button.classList.add("miss");
      button.style.left = from * 100 + "%";
      button.style.width = width * 100 + "%";
      button.style.top = node.depth * 22 + "px";
      const share = percent(node[measure], root[measure]);
      button.title = node.name + "\n" + amount[measure](node[measure]) + ", " + share;
      button.setAttribute("aria-label", node.name + ", " + amount[measure](node[measure]) + ", " + share);
      button.addEventListener("click", () => zoom(node));
      button.addEventListener("mouseenter", () => tell(node));
      button.addEventListener("focus", () => { moveTo(node); tell(node); });
      flame.shown.set(node, button);
      return button;
    });
    box.replaceChildren(...elements);
    box.style.height = (deepest + 1) * 22 + "px";
    at("flame-reset").hidden = top === root;
    at("told").textContent = narrow ? plural(narrow, "frame") + " too narrow to be shown; go into a frame to see what is in it" : "";
    flame.current = null;
    moveTo(top);
    if (focus) flame.shown.get(top).focus();
  };
  // One frame at a time is in the order of Tab.
  const moveTo = node => {
    if (flame.current) flame.shown.get(flame.current).tabIndex = -1;
    flame.current = node;
    flame.shown.get(node).tabIndex = 0;
  };
  const zoom = node => { flame.top = node; drawFlame(true); };
  const beside = (node, step) => {
    const row = [...flame.shown.keys()].filter(other => other.depth === node.depth)
      .sort((a, b) => parseFloat(flame.shown.get(a).style.left) - parseFloat(flame.shown.get(b).style.left));
    return row[row.indexOf(node) + step];
  };
  at("flame").addEventListener("keydown", event => {
    const node = flame.current;
    const below = () => [...flame.shown.keys()].filter(other => other.parent === node)
      .sort((a, b) => b[flame.measure] - a[flame.measure])[0];
    const next = {
      ArrowUp: () => node.parent, ArrowDown: below, ArrowLeft: () => beside(node, -1), ArrowRight: () => beside(node, 1),
      Home: () => flame.top,
    }[event.key];
    if (event.key === "Escape") zoom(root);
    else if (next) { const to = next(); if (to) flame.shown.get(to).focus(); }
    else return;
    event.preventDefault();
  });
  at("flame-reset").addEventListener("click", () => zoom(root));

  // ---- Call paths ---------------------------------------------------------------------------------------------------

  const age = group => group.newest === null ? "\u2013" :
    group.newest === group.oldest ? grouped(group.newest) : grouped(group.newest) + " to " + grouped(group.oldest);
  const tagsOf = group => group.tags.map(tag => words[tag]).join(", ");
  const sizes = group => group.smallest === group.largest ? hex(group.smallest) : hex(group.smallest) + " to " + hex(group.largest);
  const meter = part => {
    const bar = make("i", "");
    bar.style.width = Math.min(100, part * 100) + "%";
    const box = make("span", "meter", bar);
    box.setAttribute("aria-hidden", "true");
    return box;
  };
  const columns = [
    { name: "Caller", key: callerOf, className: "path" },
    { name: "Driver", key: group => words[group.driver], cell: group => [words[group.driver]] },
    { name: "Tags", key: tagsOf, cell: group => [tagsOf(group)] },
    { name: "Bytes", key: group => group.bytes, cell: group => [binary(group.bytes)], title: group => hex(group.bytes) },
    { name: "Share", key: group => group.bytes, cell: group =>
      [percent(group.bytes, total.bytes), meter(total.bytes ? group.bytes / total.bytes : 0)] },
    { name: "Blocks", key: group => group.blocks, cell: group => [grouped(group.blocks)] },
    { name: "Block size", key: group => group.largest, cell: group => [sizes(group)] },
    { name: "Age in log entries", key: group => group.newest === null ? -1 : group.oldest, cell: group => [age(group)] },
  ];
  if (moments.length > 1) {
    columns.push({ name: "Growth", key: grew, cell: group => {
      const growth = grew(group);
      const each = group.history.every((held, index) => index === 0 || held[0] > group.history[index - 1][0]);
      const text = make("span", growth > 0 ? "up" : growth < 0 ? "down" : "dim", growth === 0 ? "0" : signed(growth, binary));
      return each && moments.length > 2 ? [text, make("span", "dim", " each time")] : [text];
    } });
  }
  const numeric = column => typeof column.key(groups[0]) === "number";
  const compared = (key, sign) => (a, b) => {
    const [one, other] = [key(a), key(b)];
    return sign * (one < other ? -1 : one > other ? 1 : 0);
  };
  const table = { column: columns.find(column => column.name === "Bytes"), sign: -1, limit: STEP, found: groups, open: new Set() };
  const sortable = (columns, state, draw) => columns.map(column => {
    const button = make("button", "", column.name);
    button.type = "button";
    const head = make("th", column.isNumber ? "number" : "", button);
    head.scope = "col";
    const show = () => {
      if (state.column === column) head.setAttribute("aria-sort", state.sign < 0 ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    };
    state.heads = (state.heads || []).concat(show);
    show();
    button.addEventListener("click", () => {
      state.sign = state.column === column ? -state.sign : column.isNumber ? -1 : 1;
      state.column = column;
      state.heads.forEach(show => show());
      draw();
    });
    return head;
  });

  const facts = pairs => {
    const list = make("dl", "facts");
    for (const [name, value] of pairs) if (value !== "") list.append(make("dt", "", name), make("dd", "mono", value));
    return list;
  };
  const stackOf = group => {
    const list = make("ol", "stack");
    const line = (index, className) => {
      const [address, name, hasSymbol] = frames[index];
      const item = make("li", className, make("span", "at", words[address]));
      if (hasSymbol) item.append(" " + words[name]);
      list.append(item);
    };
    group.allocator.forEach(index => line(index, "apart"));
    group.path.forEach((index, place) => line(index, place === 0 ? "caller" : ""));
    if (!group.path.length) list.append(make("li", "dim", words[group.stack[0]]));
    return list;
  };
  const knownOf = group => {
    const parts = [];
    if (group.known < group.blocks && group.known > 0) parts.push("stack of " + grouped(group.known) + " of " + plural(group.blocks, "block"));
    if (group.known === 0 && group.blocks > 0) parts.push("the stack is not known, only the caller");
    if (group.gone) parts.push("of " + grouped(group.gone) + " the allocation is no longer in the log");
    return parts.join("; ");
  };

  // What a block's own stack is, in words: it has the one of its group where nothing else was read.
  const ownStack = (group, block) => {
    if (group.known === 0) return "The caller; the stack is not known";
    if (block[3] === null && group.known < group.blocks) return "The stack of blocks like this; its own was not read";
    return group.path.length ? "Stack" : "Stacks of this group differ";
  };
  const blockColumns = [
    { name: "Address", key: block => block[0] },
    { name: "Size", key: block => block[1], isNumber: true },
    { name: "Tag", key: block => words[block[2]] },
    { name: "Event", key: block => block[3] === null ? -1 : block[3], isNumber: true },
    { name: "Thread", key: block => block[4] === null ? "" : words[block[4]] },
  ];
  const blocksOf = (group, wanted) => {
    const state = { column: blockColumns[1], sign: -1, limit: STEP, sorted: group.list.slice(), open: new Set(wanted ? [wanted] : []) };
    const body = make("tbody", "");
    const more = make("button", "", "");
    const shown = make("span", "dim", "");
    more.type = "button";
    const opened = block => {
      const cell = make("td", "", facts([
        ["Address", block[0]], ["Size", hex(block[1]) + " (" + grouped(block[1]) + ")"], ["Tag", words[block[2]]],
        ["Event", block[3] === null ? "not found in the log" : hex(block[3])],
        ["Thread", block[4] === null ? "not known" : words[block[4]]], ["Driver", words[group.driver]],
      ]), make("h3", "", ownStack(group, block)), stackOf(group));
      cell.colSpan = blockColumns.length;
      return make("tr", "detail", cell);
    };
    const rowOf = block => {
      const button = make("button", "opens mono", block[0]);
      button.type = "button";
      const row = make("tr", "block", make("td", "", button), make("td", "number", hex(block[1])),
        make("td", "mono", words[block[2]]), make("td", "number", block[3] === null ? "\u2013" : hex(block[3])),
        make("td", "mono", block[4] === null ? "\u2013" : words[block[4]]));
      const show = () => {
        const isOpen = state.open.has(block);
        button.setAttribute("aria-expanded", String(isOpen));
        row.classList.toggle("open", isOpen);
        if (isOpen) row.after(opened(block));
        else if (row.nextElementSibling && row.nextElementSibling.classList.contains("detail")) row.nextElementSibling.remove();
      };
      button.addEventListener("click", () => {
        if (!state.open.delete(block)) state.open.add(block);
        show();
      });
      button.setAttribute("aria-expanded", "false");
      return { row, show, isOpen: state.open.has(block) };
    };
    const draw = () => {
      state.sorted.sort(compared(state.column.key, state.sign));
      if (wanted) state.sorted.sort((a, b) => (b === wanted) - (a === wanted));
      const rows = state.sorted.slice(0, state.limit).map(rowOf);
      body.replaceChildren(...rows.map(({ row }) => row));
      rows.filter(({ isOpen }) => isOpen).forEach(({ show }) => show());
      const left = state.sorted.length - state.limit;
      more.hidden = left <= 0;
      more.textContent = "Show " + grouped(Math.min(left, state.limit * 9)) + " more";
      shown.textContent = left > 0 ? grouped(state.limit) + " of " + plural(state.sorted.length, "block") : "";
    };
    more.addEventListener("click", () => { state.limit *= 10; draw(); });
    const head = make("tr", "", ...sortable(blockColumns, state, draw));
    draw();
    const box = make("div", "blocks", make("table", "", make("thead", "", head), body));
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Blocks of " + nameOf(group));
    return make("div", "", make("h3", "", plural(group.list.length, "block")), box, make("div", "more", more, shown));
  };

  const detailOf = group => {
    const left = make("div", "", make("h3", "", "Call path"), stackOf(group));
    const known = knownOf(group);
    left.prepend(...(known ? [make("p", "dim", known)] : []));
    if (moments.length > 1) {
      left.append(make("h3", "", "Over time"), facts(group.history.map(([bytes, blocks], index) =>
        [moments[index].text, binary(bytes) + ", " + plural(blocks, "block")])));
    }
    const right = group.list.length ? blocksOf(group, blockWanted(group)) :
      make("p", "dim", group.blocks ? "The snapshot lists no blocks of this path." : "It holds nothing any more.");
    const cell = make("td", "", make("div", "sides", left, right));
    cell.colSpan = columns.length;
    return make("tr", "detail", cell);
  };
  const rowOf = group => {
    const button = make("button", "opens mono", callerOf(group));
    button.type = "button";
    const row = make("tr", "group", make("td", "path", button));
    for (const column of columns.slice(1)) {
      const cell = make("td", column.isNumber ? "number" : "mono", ...column.cell(group));
      if (column.title) cell.title = column.title(group);
      row.append(cell);
    }
    const show = () => {
      const isOpen = table.open.has(group);
      button.setAttribute("aria-expanded", String(isOpen));
      row.classList.toggle("open", isOpen);
      if (isOpen) row.after(detailOf(group));
      else if (row.nextElementSibling && row.nextElementSibling.classList.contains("detail")) row.nextElementSibling.remove();
    };
    button.setAttribute("aria-expanded", "false");
    button.addEventListener("click", () => {
      if (!table.open.delete(group)) table.open.add(group);
      show();
    });
    return { row, show, isOpen: table.open.has(group) };
  };
  const drawTable = () => {
    const sorted = table.found.slice().sort(compared(table.column.key, table.sign));
    const rows = sorted.slice(0, table.limit).map(rowOf);
    at("groups").replaceChildren(...rows.map(({ row }) => row));
    rows.filter(({ isOpen }) => isOpen).forEach(({ show }) => show());
    const left = sorted.length - table.limit;
    at("more").hidden = left <= 0;
    at("more").textContent = "Show " + grouped(Math.min(left, table.limit * 9)) + " more";
    at("shown").textContent = (left > 0 ? grouped(table.limit) + " of " : "") + plural(sorted.length, "call path") +
      (sorted.length < groups.length ? " of " + grouped(groups.length) : "") + ", " +
      binary(sumOf(sorted, "bytes")) + " in " + plural(sumOf(sorted, "blocks"), "block");
  };
  at("more").addEventListener("click", () => { table.limit *= 10; drawTable(); });

  // ---- Finding ------------------------------------------------------------------------------------------------------

  let wantedAddress = null;
  const addressOf = text => {
    const digits = text.replace(/^0x/, "").replace(/`/g, "");
    return /^[0-9a-f]{6,16}$/.test(digits) ? BigInt("0x" + digits) : null;
  };
  // The block that an address lies in.
  const blockWanted = group => wantedAddress === null ? null : group.list.find(block => {
    const start = BigInt("0x" + block[0]);
    return wantedAddress >= start && wantedAddress < start + BigInt(Math.max(1, block[1]));
  }) || null;
  const textOf = group => [words[group.driver], tagsOf(group), ...group.stack.map(word => words[word]),
    ...group.allocator.map(frameName)].join("\n").toLowerCase();
  at("find").addEventListener("input", () => {
    const text = at("find").value.trim().toLowerCase();
    wantedAddress = addressOf(text);
    const inBlock = wantedAddress === null ? [] : groups.filter(blockWanted);
    table.limit = STEP;
    if (inBlock.length) {
      table.found = inBlock;
      inBlock.forEach(group => table.open.add(group));
    } else {
      wantedAddress = null;
      table.found = text ? groups.filter(group => textOf(group).includes(text)) : groups;
    }
    flame.found = inBlock.length ? "" : text;
    for (const [node, button] of flame.shown) button.classList.toggle("miss", !isFound(node));
    drawTable();
  });

  // ---- The page -----------------------------------------------------------------------------------------------------

  if (groups.length) {
    columns.forEach(column => { column.isNumber = numeric(column); });
    at("columns").append(...sortable(columns, table, drawTable));
    drawTable();
    at("paths").hidden = false;
    choice(at("flame-weight"), measure => { flame.measure = measure; flame.top = root; drawFlame(false); });
    drawFlame(false);
    at("flames").hidden = false;
    if (moments.length > 1) {
      choice(at("growth-weight"), drawGrowth);
      drawGrowth("bytes");
      at("growth").hidden = false;
    }
  }
})();
