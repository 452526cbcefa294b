// The browser of examples. It builds the page from the block of data with text nodes and attributes alone: no words of a
// model or a data set ever become markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const at = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const CONDITIONS = { seen: "with media", blind: "blind", shuffled: "shuffled" };
  const ABOUT = {
    seen: "the sample as it is",
    blind: "no picture and no sound",
    shuffled: "the media of another sample",
  };
  const VERDICTS = { right: "right", partly: "partly right", wrong: "wrong", unread: "unparsable", unasked: "not asked", open: "no truth" };
  const conditions = Object.keys(CONDITIONS).filter((c) => data.examples.some((e) => c in e.under));
  const state = {
    set: "", model: data.variants[data.variants.length - 1], condition: "seen", verdict: "", draw: "", order: "",
    words: "", beside: true, found: [], place: 0,
  };

  // ---- building ----

  function make(tag, attributes, ...inner) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value !== undefined) node.setAttribute(name, value);
    }
    node.append(...inner.filter((one) => one !== null && one !== undefined));
    return node;
  }

  function shape(tag, attributes, ...inner) {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...inner);
    return node;
  }

  // Signs that cannot be seen, or that turn the line around, as their numbers.
  const HIDDEN = /[\p{Cc}\p{Cf}\p{Co}\p{Cs}]/u;
  function words(text, language, css) {
    const node = make("span", { class: "words-of" + (css ? " " + css : ""), lang: language || undefined, dir: "auto" });
    if (!text) {
      node.append(make("span", { class: "nothing" }, "(nothing)"));
      return node;
    }
    let run = "";
    for (const sign of text) {
      if (sign === "\n" || !HIDDEN.test(sign)) {
        run += sign;
        continue;
      }
      node.append(run, make("span", { class: "hidden-sign" }, "\\u" + sign.codePointAt(0).toString(16).padStart(4, "0")));
      run = "";
    }
    node.append(run);
    return node;
  }

  // A turn with chips where its media stand. A mark that a person typed has a private sign inside: it stays words.
  function turn(text, language) {
    const node = make("span", { class: "words-of", lang: language || undefined, dir: "auto" });
    for (const piece of text.split(/(<image>|<audio>)/)) {
      if (piece === "<image>" || piece === "<audio>") {
        node.append(make("span", { class: "chip" }, piece === "<image>" ? "picture" : "sound"));
      } else if (piece) {
        node.append(words(piece.replaceAll("\ue000", ""), language));
      }
    }
    return node;
  }

  const own = (tree, name) => (tree && Object.hasOwn(tree, name) ? tree[name] : undefined);
  const said = (example, condition, model) => own(own(example.under, condition)?.said, model);
  const number = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(3)).replace("-", "−");

  // ---- filtering ----

  function haystack(example) {
    if (example.hay === undefined) {
      const parts = [example.id, example.set, ...example.turns.map((t) => t[1]), ...example.truth, ...Object.values(example.facts)];
      for (const told of Object.values(example.under)) {
        for (const one of Object.values(told.said)) parts.push(one.text);
      }
      example.hay = parts.join("\n").toLocaleLowerCase();
    }
    return example.hay;
  }

  function fits(example) {
    if (state.set && example.set !== state.set) return false;
    if (state.draw && example.why !== state.draw) return false;
    const answer = said(example, state.condition, state.model);
    if (!answer) return false;
    if (state.verdict === "not-right" && answer.verdict === "right") return false;
    if (state.verdict && state.verdict !== "not-right" && answer.verdict !== state.verdict) return false;
    return state.words.toLocaleLowerCase().split(/\s+/).every((word) => haystack(example).includes(word));
  }

  const RANK = { unasked: 0, unread: 1, wrong: 2, partly: 3, right: 4, open: 0 };
  function goodness(example) {
    const answer = said(example, state.condition, state.model);
    const set = data.sets[example.set];
    const value = answer.scores[set.metric] ?? 0;
    return RANK[answer.verdict] * 1000 + (set.lower ? -value : value);
  }

  function filter() {
    const before = state.found[state.place];
    state.found = data.examples.filter(fits);
    if (state.order) {
      const sign = state.order === "low" ? 1 : -1;
      state.found = state.found.map((e) => [goodness(e), e]).sort((a, b) => sign * (a[0] - b[0])).map((pair) => pair[1]);
    }
    state.place = Math.max(state.found.indexOf(before), 0);
    list();
    show();
  }

  // ---- the list ----

  function thumb(example) {
    const told = example.under.seen || {};
    const first = data.media[(told.pictures || [])[0] ?? (told.sounds || [])[0] ?? -1];
    const uri = first && (first.spectrum || first.uri);
    return uri ? make("img", { class: "thumb", src: uri, alt: "", loading: "lazy" }) : make("span", { class: "thumb" });
  }

  function list() {
    const items = state.found.map((example, place) => {
      const answer = said(example, state.condition, state.model);
      const asked = example.turns.length ? example.turns[example.turns.length - 1][1] : "";
      const short = (text) => words(text.slice(0, 160), example.lang);
      const line = make("b", {}, short(asked.replace(/<image>|<audio>|\ue000/g, "").trim() || example.id));
      const under = make("small", {}, badge(answer.verdict), " ", short(answer.text));
      const button = make("button", { type: "button" }, thumb(example), make("span", { class: "words" }, line, under));
      button.addEventListener("click", () => { state.place = place; show(); });
      return make("li", {}, button);
    });
    at("list").replaceChildren(...items);
  }

  const badge = (verdict) => make("span", { class: "badge " + verdict }, VERDICTS[verdict]);

  // ---- one example ----

  function show() {
    const count = state.found.length;
    const example = state.found[state.place];
    at("status").textContent = count ? `example ${state.place + 1} of ${count}` : "no example fits; change what is asked for";
    at("before").disabled = state.place <= 0;
    at("after").disabled = state.place >= count - 1;
    const buttons = at("list").querySelectorAll("button");
    buttons.forEach((button, place) => button.setAttribute("aria-current", String(place === state.place)));
    const here = buttons[state.place];
    if (here) at("list").scrollTop = here.offsetTop - at("list").clientHeight / 2 + here.clientHeight / 2;
    at("detail").replaceChildren(...(example ? detail(example) : []));
  }

  function detail(example) {
    const why = example.why === "mistake" ? "drawn as a mistake" : "drawn at random";
    const head = make("header", {}, make("h3", {}, words(example.id)), words([example.set, example.lang, why].filter(Boolean).join(" · "), "", "soft"));
    const talk = example.turns.map(([role, text]) => make("div", {}, make("span", { class: "who" }, role), turn(text, example.lang)));
    const truth = make("div", {}, make("span", { class: "who" }, "truth"), words(example.truth.join(" | "), example.lang, "truth"));
    const shown = (state.beside ? conditions : [state.condition]).filter((c) => c in example.under);
    const columns = shown.map((condition) => column(example, condition));
    const facts = Object.entries(example.facts).map(([name, value]) => make("span", {}, name.replaceAll("_", " ") + ": ", words(value)));
    return [head, make("div", { class: "talk" }, ...talk, truth), legend(example), make("div", { class: "under" }, ...columns),
      facts.length ? make("div", { class: "tags" }, ...facts) : null, prompts(example, shown)].filter(Boolean);
  }

  function legend(example) {
    const any = Object.values(example.under).some((told) => Object.values(told.said).some((one) => one.boxes));
    if (!example.boxes.length && !any) return null;
    return make("p", { class: "legend-line" },
      make("span", {}, make("i", {}), "true box"), make("span", {}, make("i", { class: "said" }), "answered box of ", words(state.model)));
  }

  function column(example, condition) {
    const told = example.under[condition];
    const head = make("h4", {}, CONDITIONS[condition], make("small", {}, words(told.donor ? `media of ${told.donor}` : ABOUT[condition])));
    const media = [...pictures(example, condition), ...(told.sounds || []).map((place) => sound(data.media[place]))];
    const order = [state.model, ...data.variants.filter((label) => label !== state.model)];
    const answers = order.filter((label) => own(told.said, label)).map((label) => answer(example, told.said[label], label));
    const css = condition === state.condition && state.beside ? "chosen" : undefined;
    return make("div", { class: css, "data-condition": condition }, head, ...media, ...answers);
  }

  // ---- media ----

  function pictures(example, condition) {
    const told = example.under[condition];
    const answered = said(example, condition, state.model)?.boxes;
    const given = told.pictures || [];
    const without = !given.length && (example.boxes.length || answered);
    const shown = without ? (example.under.seen?.pictures || []).map((place) => ({ ...data.media[place], uri: "" })) : given.map((place) => data.media[place]);
    return shown.map((item, image) => {
      if (item.problem && !without) return make("div", { class: "problem" }, words(item.problem));
      const truth = example.boxes.filter((box) => box.image === image);
      const boxes = answered && answered.image === image ? answered.at : [];
      return picture(item, truth, boxes, example);
    });
  }

  function picture(item, truth, boxes, example) {
    const width = item.width || 100, height = item.height || 100;
    const label = `picture${truth.length ? `, ${truth.length} true` : ""}${boxes.length ? `, ${boxes.length} answered` : ""}${truth.length || boxes.length ? " boxes" : ""}`;
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": item.uri ? label : "no " + label });
    if (Math.max(width, height) <= 128) svg.setAttribute("class", "tiny");
    if (item.uri) {
      svg.append(shape("image", { href: item.uri, width, height, preserveAspectRatio: "none" }));
    } else {
      svg.append(shape("rect", { class: "none", width, height }));
      svg.append(shape("text", { x: width / 2, y: height * 0.95, "text-anchor": "middle", "font-size": width / 14 }, "no picture was given"));
    }
    [...truth.map((box) => box.at), ...boxes].forEach((box) => svg.append(rectangle(box, width, height, "halo", "")));
    truth.forEach((box) => svg.append(rectangle(box.at, width, height, "true", box.label)));
    boxes.forEach((box, place) => svg.append(rectangle(box, width, height, place && example.boxes.length ? "said more" : "said", "")));
    return make("div", { class: "frame" }, svg);
  }

  function rectangle([x1, y1, x2, y2], width, height, css, label) {
    const place = { x: x1 * width, y: y1 * height, width: Math.max(x2 - x1, 0) * width, height: Math.max(y2 - y1, 0) * height };
    const box = shape("rect", { class: "box " + css, ...place });
    if (label) box.append(shape("title", {}, label));
    return box;
  }

  function sound(item) {
    if (item.problem) return make("div", { class: "problem" }, words(item.problem));
    const image = make("img", { src: item.spectrum, alt: `spectrogram of ${item.seconds.toFixed(1)} seconds` });
    return make("div", { class: "sound" }, image, make("audio", { controls: "controls", preload: "metadata", src: item.uri, "aria-label": "the sound" }));
  }

  // ---- answers ----

  function answer(example, one, label) {
    const set = data.sets[example.set];
    const scores = Object.entries(one.scores).map(([name, value]) => `${name} ${number(value)}`).join(", ");
    const main = set.metric in one.scores ? `${set.metric} ${number(one.scores[set.metric])}` : "";
    const who = make("div", { class: "who" }, make("i", { class: "key c" + (data.variants.indexOf(label) % 6) }), words(label), badge(one.verdict), make("span", { title: scores }, main));
    const node = make("div", { class: "answer" + (label === state.model ? " main" : ""), "data-verdict": one.verdict }, who, words(one.text, example.lang));
    if (one.why) node.append(make("small", { class: "warn" }, words(one.why)));
    if (one.generated !== undefined) node.append(make("small", {}, "generated: ", words(one.generated, example.lang)));
    if (one.raw_answer !== undefined) node.append(make("small", {}, "in the model's frame: ", words(one.raw_answer, example.lang)));
    if (one.likelihoods && label === state.model) node.append(choices(example, one, set));
    return node;
  }

  // Choices by their mean log-probability per token; bars are relative to the likeliest.
  function choices(example, one, set) {
    const rows = Object.entries(one.likelihoods).map(([choice, [total, tokens]]) => [choice, total, total / Math.max(tokens, 1), tokens]);
    rows.sort((a, b) => b[2] - a[2]);
    const best = rows.length ? rows[0][2] : 0;
    const cells = rows.flatMap(([choice, total, mean, tokens]) => {
      const meter = shape("svg", { viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
        shape("rect", { width: 100 * Math.exp(mean - best), height: 8 }));
      const meant = spelled(example, choice);
      const line = meant === choice ? choice : `${choice} · ${meant}`;
      const name = example.truth.includes(meant) ? make("b", {}, words(line, example.lang)) : words(line, example.lang);
      const told = `${number(mean)} (${number(total)} / ${tokens})`;
      return [name, make("span", { class: "meter" }, meter), make("span", { class: "soft", title: "log-probability per token (its sum / tokens)" }, told)];
    });
    return make("div", { class: "choices", role: "group", "aria-label": "likelihoods of the choices: " + set.answered }, ...cells);
  }

  // Where letters are ranked, the words that a letter stands for.
  function spelled(example, choice) {
    const place = choice.length === 1 && !example.choices.includes(choice) ? choice.charCodeAt(0) - 65 : -1;
    return example.choices[place] ?? choice;
  }

  function prompts(example, shown) {
    const lines = shown.map((condition) => [CONDITIONS[condition], example.under[condition].prompt]).filter((line) => line[1]);
    if (!lines.length) return null;
    const inner = lines.flatMap(([name, prompt]) => [make("small", {}, name), make("pre", {}, words(prompt))]);
    return make("details", {}, make("summary", {}, "prompt as the template renders it"), ...inner);
  }

  // ---- controls ----

  function choice(id, key, options) {
    at(id).replaceChildren(...options.map(([value, name]) => new Option(name, value)));
    at(id).value = state[key];
    listen(id, key);
  }

  function listen(id, key) {
    at(id).addEventListener(id === "by-words" ? "input" : "change", () => { state[key] = at(id).value; filter(); });
  }

  function step(by) {
    const next = state.place + by;
    if (next < 0 || next >= state.found.length) return;
    state.place = next;
    show();
  }

  function condition(name) {
    if (!conditions.includes(name)) return;
    state.condition = name;
    document.querySelector(`#by-condition input[value="${name}"]`).checked = true;
    filter();
  }

  function start() {
    const sets = Object.keys(data.sets).filter((name) => data.examples.some((e) => e.set === name));
    choice("by-set", "set", [["", `all (${data.examples.length})`], ...sets.map((name) => [name, name])]);
    choice("by-model", "model", data.variants.map((label) => [label, label]));
    choice("by-verdict", "verdict", [["", "all"], ["not-right", "all but right"], ...Object.entries(VERDICTS)]);
    ["draw", "order", "words"].forEach((key) => listen("by-" + key, key));
    at("by-condition").replaceChildren(...conditions.map((name) => {
      const input = make("input", { type: "radio", name: "condition", value: name });
      input.checked = name === state.condition;
      input.addEventListener("change", () => condition(name));
      return make("label", { title: ABOUT[name] }, input, make("span", {}, CONDITIONS[name]));
    }));
    at("beside").addEventListener("change", () => { state.beside = at("beside").checked; show(); });
    at("before").addEventListener("click", () => step(-1));
    at("after").addEventListener("click", () => step(1));
    document.addEventListener("keydown", keys);
    window.addEventListener("hashchange", unfold);
    unfold();
    filter();
  }

  function keys(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input[type=search], select, textarea, audio, .wide");
    if (typing && event.key === "Escape") typing.blur();
    if (typing || (event.target.type === "radio" && event.key.startsWith("Arrow"))) return;
    const acts = {
      ArrowRight: () => step(1), j: () => step(1), ArrowLeft: () => step(-1), k: () => step(-1),
      1: () => condition(conditions[0]), 2: () => condition(conditions[1]), 3: () => condition(conditions[2]),
      b: () => at("beside").click(), "/": () => at("by-words").focus(),
    };
    const act = acts[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }

  // A link into a fold opens it.
  function unfold() {
    const target = location.hash.length > 1 && at(location.hash.slice(1));
    const fold = target && target.closest("details");
    if (fold) { fold.open = true; target.scrollIntoView(); }
  }

  start();
})();
