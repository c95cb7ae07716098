// The explorer: reads scripts that explorer.py wrote, and draws norms and attention maps with Vega-Lite.
"use strict";
window.explorer = (() => {
  const PER_UNIT = 1000, ABSENT = -(2 ** 30), ZERO = ABSENT + 1, MAX_DECADES = 16;
  const MEAN = 0, LOW = 1, HIGH = 2, FIRST_SEED = 3;
  const element = (id) => document.getElementById(id);
  const form = document.querySelector("form.controls").elements;
  const waiting = new Map(), trials = new Map();
  let studies = [], trial = null, line = null, map = null, views = {}, drawing = 0, width = 0;

  // Data ---------------------------------------------------------------------------------------------------------------

  /** Return the numbers of a packed array: thousandths as differences along the last axis, deflated, in base64. */
  async function unpack({shape, packed}) {
    const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const whole = new Int32Array(await new Response(stream).arrayBuffer());
    const width = shape[shape.length - 1];
    for (let i = 0; i < whole.length; i++) if (i % width) whole[i] += whole[i - 1];
    const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
    return (...place) => {
      const found = whole[place.reduce((sum, index, axis) => sum + index * strides[axis], 0)];
      return found === ABSENT ? null : found === ZERO ? -Infinity : found / PER_UNIT;
    };
  }

  /** Load the script of a trial once; it calls `explorer.trial`. */
  function load(id) {
    if (!trials.has(id)) {
      trials.set(id, new Promise((resolve, reject) => {
        waiting.set(id, resolve);
        const script = Object.assign(document.createElement("script"), {src: `data/${id}.js`});
        script.onerror = () => reject(new Error(`data/${id}.js cannot be read`));
        document.head.append(script);
      }));
    }
    return trials.get(id);
  }

  async function receive(id, content) {
    for (const each of content.lines) each.norm = await unpack(each.norms);
    for (const each of content.maps || []) each.weight = await unpack(each.weights);
    waiting.get(id)({id, ...content});
  }

  // Words --------------------------------------------------------------------------------------------------------------

  const raised = (number) => String(number).replace(/[-0-9]/g, (letter) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(letter)]);

  /** «3.2 × 10⁻¹²» of a log10, «0» of a norm that is exactly zero, «n/a» where there is none. */
  function power(log10) {
    if (log10 === null || log10 === undefined || Number.isNaN(log10)) return "n/a";
    if (log10 === -Infinity) return "0";
    let whole = Math.floor(log10), lead = (10 ** (log10 - whole)).toFixed(2);
    if (lead === "10.00") [lead, whole] = ["1.00", whole + 1];
    return `${lead} × 10${raised(whole)}`;
  }

  const LAYERS = ({layer, direction}) => `layer ${layer + 1}, ${direction}`;
  const QUANTITIES = {h: "∂L/∂h", c: "∂L/∂c", x: "∂L/∂x"};
  const quantity_of = ({part, quantity}) => `${part}: ${QUANTITIES[quantity] || `∂L/∂${quantity}`}`;
  const who = () => (chosen("seed") === "mean" ? `mean over ${line.of} seeds` : `seed ${chosen("seed")}`);

  // Controls -----------------------------------------------------------------------------------------------------------

  const chosen = (name) => form[name].value;

  /** Fill a list with [value, text] or {group, options}, and keep what was chosen where it is still there. */
  function fill(list, options, wanted) {
    const before = wanted ?? list.value;
    const option = ([value, text]) => new Option(text, value);
    list.replaceChildren(...options.map((one) => {
      if (Array.isArray(one)) return option(one);
      const group = Object.assign(document.createElement("optgroup"), {label: one.group});
      group.append(...one.options.map(option));
      return group;
    }));
    list.value = before;
    if (list.selectedIndex < 0) list.selectedIndex = 0;
  }

  const study_of = (name) => studies.find((study) => study.name === name);
  const settings_of = (study) => study.grids.flatMap((grid) => grid.settings);

  async function choose_study(wanted) {
    const study = study_of(chosen("study"));
    element("question").textContent = study.question;
    fill(form.setting, study.grids.map((grid) => ({
      group: `${grid.name} (${grid.dataset})`,
      options: grid.settings.map(({id, label, selected}) => [id, selected ? label : `${label} (not selected)`]),
    })), wanted ?? (settings_of(study).find(({selected}) => selected) || settings_of(study)[0]).id);
    element("shown").textContent = study.grids.filter((grid) => grid.settings.length < grid.of).map((grid) =>
      `${grid.settings.length} of ${grid.of} settings of ${grid.name} are shown${grid.untraced ? `, ${grid.untraced} left no trace` : ""}.`).join(" ");
    await choose_setting();
  }

  async function choose_setting() {
    const mine = ++drawing, id = chosen("setting");
    let found;
    try { found = await load(id); } catch (error) { element("reading").textContent = error.message; return; }
    if (mine !== drawing) return;  // something else was chosen meanwhile
    trial = found;
    history.replaceState(null, "", `#${id}`);
    fill(form.quantity, [...new Map(trial.lines.map((each) => [`${each.part} ${each.quantity}`, quantity_of(each)]))]);
    if (trial.maps) fill(element("example"), trial.maps.map(({example}, place) => [place, `example ${example + 1}`]));
    await choose_quantity();
  }

  async function choose_quantity() {
    const lines = trial.lines.filter((each) => `${each.part} ${each.quantity}` === chosen("quantity"));
    fill(form.layer, lines.map((each) => [`${each.layer} ${each.direction}`, LAYERS(each)]));
    await choose_layer();
  }

  async function choose_layer() {
    const key = `${chosen("quantity")} ${chosen("layer")}`;
    line = trial.lines.find((each) => `${each.part} ${each.quantity} ${each.layer} ${each.direction}` === key);
    const seeds = line.seeds.map((seed) => [seed, `seed ${seed}`]);
    const more = line.of > line.seeds.length ? `, the first ${line.seeds.length} alone` : "";
    fill(form.seed, [["mean", `mean over ${line.of} seeds${more}`], ...seeds]);
    const was = Number(form.step.value), end = line.steps.length - 1;
    const at_end = form.step.max === "0" || was === Number(form.step.max);
    form.step.max = end;
    form.step.value = at_end ? end : Math.min(was, end);
    form.lag.max = line.timesteps.length - 1;
    form.lag.value = 0;
    await draw();
  }

  // What is shown ------------------------------------------------------------------------------------------------------

  const row_of_seed = (seeds) => (chosen("seed") === "mean" ? 0 : seeds.indexOf(Number(chosen("seed"))) + 1);
  const row = () => { const place = row_of_seed(line.seeds); return place ? place + FIRST_SEED - 1 : MEAN; };
  const step = () => Number(form.step.value);
  const point_at = (place) => { form.lag.value = line.timesteps.length - 1 - place; };

  /** The norms of a training step by lag, nearest the loss first. */
  function norms(at) {
    return line.timesteps.map((timestep, place) => {
      const ends = row() === MEAN ? {low: line.norm(LOW, at, place), high: line.norm(HIGH, at, place)} : {};
      return {lag: line.T - timestep, timestep, value: line.norm(row(), at, place), ...ends};
    }).reverse();
  }

  function cells() {
    const edges = line.timesteps.map((timestep, place) => [
      place ? (line.timesteps[place - 1] + timestep) / 2 : timestep - 0.5,
      place < line.timesteps.length - 1 ? (timestep + line.timesteps[place + 1]) / 2 : timestep + 0.5,
    ]);
    return line.steps.flatMap((training_step, at) => line.timesteps.map((timestep, place) => {
      const value = line.norm(row(), at, place);
      return {step: training_step, timestep, left: edges[place][0], right: edges[place][1], value, norm: power(value)};
    }));
  }

  /** The map measured last at or before the chosen training step, or the first one. */
  function map_at() {
    const now = line.steps[step()];
    return Math.max(0, map.steps.findLastIndex((measured) => measured <= now));
  }

  function weights() {
    const at = map_at(), seed = row_of_seed(map.seeds);
    return map.outputs.flatMap((output, i) => map.sources.map((source, j) => ({
      i, j, output, source, weight: map.weight(seed, at, i, j),
      aligned: map.aligned.some(([o, s]) => o === i + 1 && s === j + 1),
    })));
  }

  const finite = (rows, ...names) => rows.map((each) => Object.fromEntries(Object.entries(each)
    .map(([name, value]) => [name, names.includes(name) && !Number.isFinite(value) ? null : value])));

  // Pictures -----------------------------------------------------------------------------------------------------------

  function theme() {
    const style = getComputedStyle(document.documentElement);
    const [paper, ink, soft, grid] = ["--paper", "--ink", "--soft", "--line"].map((name) => style.getPropertyValue(name).trim());
    const text = {labelColor: ink, titleColor: ink, labelFontSize: 12, titleFontSize: 12, titleFontWeight: 500};
    return {
      background: paper, font: "system-ui, sans-serif", view: {stroke: null},
      axis: {...text, gridColor: grid, domainColor: soft, tickColor: soft}, legend: {...text, gradientLength: 150},
    };
  }

  async function embed(id, spec) {
    views[id]?.finalize();
    const chart = element(id).querySelector(".chart");
    const full = {$schema: "https://vega.github.io/schema/vega-lite/v6.json", autosize: {type: "fit", contains: "padding"},
      width: Math.max(240, chart.clientWidth), height: 290, ...spec, config: theme()};
    const options = {actions: false, renderer: "canvas", expressionFunctions: {decades: (value) => (Number.isInteger(value) ? `10${raised(value)}` : power(value))}};
    const {view} = await vegaEmbed(chart, full, options);
    return (views[id] = {view, finalize: () => view.finalize()});
  }

  const DECADES = {labelExpr: "decades(datum.value)", tickMinStep: 1, tickCount: 6};

  async function draw_lags() {
    const every = line.steps.flatMap((_, at) => norms(at)).flatMap(({value, low, high}) => [value, low, high])
      .filter(Number.isFinite);
    const ends = every.length ? [Math.min(...every), Math.max(...every)] : [-1, 0];
    const y = (field) => ({field, type: "quantitative", title: "gradient norm", axis: DECADES, scale: {domain: ends, zero: false, clamp: true}});
    const LAG = {field: "lag", type: "quantitative", title: "lag k (timesteps back from the last)",
      scale: {nice: false, domain: [0, Math.max(1, line.T - line.timesteps[0])]}, axis: {tickMinStep: 1, format: "d"}};
    await embed("lags", {
      data: {name: "now", values: finite(norms(step()), "value", "low", "high")},
      layer: [
        {data: {name: "before", values: finite(norms(0), "value")}, mark: {type: "line", strokeDash: [4, 3], stroke: "#8a929a", clip: true},
          encoding: {x: LAG, y: y("value")}},
        {mark: {type: "area", opacity: 0.22, color: "#2e7cc2", clip: true}, encoding: {x: LAG, y: y("low"), y2: {field: "high"}}},
        {mark: {type: "line", color: "#2e7cc2", strokeWidth: 2, clip: true}, encoding: {x: LAG, y: y("value")}},
        {mark: {type: "point", opacity: 0, size: 60}, encoding: {x: LAG, y: y("value")},
          params: [{name: "pointed", select: {type: "point", on: "pointermove", nearest: true, fields: ["lag"], clear: false}}]},
        {data: {name: "cursor", values: []}, mark: {type: "rule", color: "#d1580b"}, encoding: {x: LAG}},
        {data: {name: "cursor", values: []}, mark: {type: "point", filled: true, size: 70, color: "#d1580b", clip: true}, encoding: {x: LAG, y: y("value")}},
      ],
    });
    views.lags.view.addSignalListener("pointed", (_, {lag}) => {
      const place = lag ? line.timesteps.indexOf(line.T - lag[0]) : -1;
      if (place >= 0) { point_at(place); read(); }
    });
  }

  async function draw_heat() {
    const values = cells(), known = values.map(({value}) => value).filter(Number.isFinite);
    const most = known.length ? Math.max(...known) : 0;
    const least = Math.max(known.length ? Math.min(...known) : -1, most - MAX_DECADES);
    const place = {
      x: {field: "left", type: "quantitative", title: "timestep t", scale: {domain: [0.5, line.T + 0.5], nice: false, round: true}, axis: {tickMinStep: 1, grid: false}},
      x2: {field: "right"},
      y: {field: "step", type: "ordinal", sort: "descending", title: "training step", scale: {round: true}, axis: {labelOverlap: true}},
    };
    const colour = {field: "value", type: "quantitative", scale: {scheme: "cividis", domain: [least, most], clamp: true}};
    const every = Math.max(1, Math.ceil((most - least) / 6));
    const ticks = Array.from({length: MAX_DECADES + 2}, (_, place) => Math.ceil(least) + place * every).filter((tick) => tick <= most);
    await embed("heat", {
      data: {values: finite(values, "value")},
      layer: [
        {mark: {type: "rect", invalid: "show"}, encoding: {...place,
          color: {...colour, title: "norm", legend: {labelExpr: "decades(datum.value)", ...(ticks.length > 1 ? {values: ticks} : {})}},
          tooltip: [{field: "step", title: "training step"}, {field: "timestep", title: "timestep t"}, {field: "norm", title: "gradient norm"}]}},
        {data: {name: "row", values: []}, mark: {type: "rect", filled: false, stroke: "#d1580b", strokeWidth: 2}, encoding: place},
      ],
    });
    views.heat.view.addEventListener("click", (_, item) => {
      const at = item?.datum ? line.steps.indexOf(item.datum.step) : -1;
      if (at >= 0) { form.step.value = at; point_at(line.timesteps.indexOf(item.datum.timestep)); move(); }
    });
    element("heat-words").textContent = `${quantity_of(line)}, ${LAYERS(line)}; ${who()}. A replica that stopped keeps its last ` +
      `measurement. Colours end ${MAX_DECADES} decades below the largest norm.` +
      (line.timesteps.length < line.T ? ` ${line.timesteps.length} of ${line.T} timesteps are shown.` : "");
  }

  async function draw_maps() {
    element("maps").hidden = !trial.maps;
    if (!trial.maps) { map = null; return; }
    map = trial.maps[Number(element("example").value)];
    const axis = (field, words, side) => ({field, type: "ordinal", sort: null, title: words, scale: {round: true},
      axis: {labelExpr: `${JSON.stringify(side)}[datum.value]`, labelAngle: 0, labelOverlap: true, domain: false, ticks: false}});
    const place = {x: axis("j", "source", map.sources), y: axis("i", "output", map.outputs)};
    await embed("maps", {
      data: {name: "weights", values: weights()},
      layer: [
        {mark: "rect", encoding: {...place,
          color: {field: "weight", type: "quantitative", title: "weight", scale: {scheme: "blues", domain: [0, 1]}},
          tooltip: [{field: "output"}, {field: "source"}, {field: "weight", format: ".3f"}]}},
        {transform: [{filter: "datum.aligned"}], mark: {type: "rect", filled: false, stroke: "#d1580b", strokeWidth: 1.5}, encoding: place},
      ],
    });
  }

  async function draw() {
    views.maps?.finalize(); delete views.maps;
    await draw_maps();
    await draw_lags();
    await draw_heat();
    await move();
  }

  /** Show another training step, in the pictures as they stand. */
  async function move() {
    const training_step = line.steps[step()];
    form.step_text.value = training_step;
    form.step.setAttribute("aria-valuetext", `training step ${training_step}`);
    views.lags.view.data("now", finite(norms(step()), "value", "low", "high"));
    views.heat.view.data("row", [{step: training_step, left: 0.5, right: line.T + 0.5}]);
    const zero = norms(step()).filter(({value}) => value === -Infinity).length;
    element("lags-words").textContent = `${quantity_of(line)}, ${LAYERS(line)}, at training step ${training_step}; ${who()}` +
      (row() === MEAN ? " with its 95 % interval" : "") + ". Dashed: before training." +
      (zero ? ` At ${zero} lags the norm is exactly zero and has no point.` : "");
    if (map) {
      views.maps.view.data("weights", weights());
      await views.maps.view.runAsync();
      const aligned = map.aligned.length ? " Inside the border: the known alignment." : "";
      element("maps-words").textContent = `Weight on each source token (left to right) while the true output is written (top to ` +
        `bottom), at training step ${map.steps[map_at()]} (measured at ${map.steps.join(", ")}); ` +
        `${chosen("seed") === "mean" ? `mean over ${map.of} seeds` : `seed ${chosen("seed")}`}.${aligned}`;
    }
    await views.heat.view.runAsync();
    await read();
    for (const id of ["maps", "lags", "heat"]) tabulate(id);
  }

  /** Say the values at the chosen lag. */
  async function read() {
    const place = line.timesteps.length - 1 - Number(form.lag.value), timestep = line.timesteps[place], lag = line.T - timestep;
    const value = line.norm(row(), step(), place), ends = [LOW, HIGH].map((side) => line.norm(side, step(), place));
    form.lag_text.value = lag;
    form.lag.setAttribute("aria-valuetext", `lag ${lag}`);
    const interval = row() === MEAN && ends[0] !== null ? ` [${power(ends[0])}, ${power(ends[1])}]` : "";
    element("reading").textContent = `Training step ${line.steps[step()]}, lag ${lag} (t = ${timestep}): gradient norm ${power(value)}${interval}, ${who()}.`;
    views.lags.view.data("cursor", finite([{lag, value}], "value"));
    await views.lags.view.runAsync();
    document.body.dataset.ready = `${trial.id} ${step()} ${place}`;
  }

  // Tables -------------------------------------------------------------------------------------------------------------

  function tabulate(id) {
    const details = element(id).querySelector("details");
    if (!details.open || (id === "maps" && !map)) return;
    const [caption, header, rows] = TABLES[id]();
    const table = document.createElement("table");
    table.createCaption().textContent = caption;
    const head = table.createTHead().insertRow();
    head.append(...header.map((text) => Object.assign(document.createElement("th"), {textContent: text, scope: "col"})));
    const body = table.createTBody();
    for (const [first, ...others] of rows) {
      const tr = body.insertRow();
      tr.append(Object.assign(document.createElement("th"), {textContent: first, scope: "row"}));
      for (const text of others) tr.insertCell().textContent = text;
    }
    details.querySelector(".wide").replaceChildren(table);
  }

  const decimals = (log10) => (log10 === null ? "n/a" : log10 === -Infinity ? "−∞" : log10.toFixed(3));
  const TABLES = {
    lags: () => [`Gradient norm at training step ${line.steps[step()]}, ${who()}`,
      ["lag k", "timestep t", "norm", "log10", ...(row() === MEAN ? ["95 % interval of log10"] : [])],
      norms(step()).map(({lag, timestep, value, low, high}) => [lag, timestep, power(value), decimals(value),
        ...(row() === MEAN ? [low === null ? "n/a" : `${decimals(low)} to ${decimals(high)}`] : [])])],
    heat: () => [`log10 of the gradient norm by training step (down) and timestep (across), ${who()}`,
      ["training step", ...line.timesteps.map((timestep) => `t = ${timestep}`)],
      line.steps.map((training_step, at) => [training_step, ...line.timesteps.map((_, place) => decimals(line.norm(row(), at, place)))])],
    maps: () => [`Attention weights at training step ${map.steps[map_at()]}: output tokens (down), source tokens (across)`,
      ["output", ...map.sources],
      map.outputs.map((output, i) => [output, ...map.sources.map((_, j) => {
        const weight = map.weight(row_of_seed(map.seeds), map_at(), i, j);
        return weight === null ? "n/a" : weight.toFixed(3);
      })])],
  };

  // Begin --------------------------------------------------------------------------------------------------------------

  /** Show what the address names: a trial, or a study. */
  async function go() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const study = studies.find((each) => each.name === wanted || settings_of(each).some(({id}) => id === wanted)) || studies[0];
    const known = settings_of(study).some(({id}) => id === wanted);
    fill(form.study, studies.map(({name}) => [name, name.replaceAll("_", " ")]), study.name);
    await choose_study(known ? wanted : undefined);
    if (wanted && !known && study.name !== wanted) {
      element("shown").textContent += ` Trial ${wanted} is not among them.`;
    }
  }

  function begin(list) {
    studies = list;
    if (!studies.length) { element("reading").textContent = "No trial has left a trace."; return; }
    form.study.addEventListener("change", () => choose_study());
    form.setting.addEventListener("change", choose_setting);
    form.quantity.addEventListener("change", choose_quantity);
    form.layer.addEventListener("change", choose_layer);
    for (const list of [form.seed, element("example")]) list.addEventListener("change", draw);
    form.step.addEventListener("input", move);
    form.lag.addEventListener("input", read);
    for (const id of ["maps", "lags", "heat"]) element(id).querySelector("details").addEventListener("toggle", () => tabulate(id));
    for (const look of ["(prefers-color-scheme: dark)", "print"]) matchMedia(look).addEventListener("change", draw);
    addEventListener("hashchange", go);
    let resized;
    new ResizeObserver(([{contentRect}]) => {
      clearTimeout(resized);
      if (line && contentRect.width !== width) resized = setTimeout(draw, 150);
      width = contentRect.width;
    }).observe(document.querySelector(".charts"));
    go();
  }

  return {list: begin, trial: receive};
})();
