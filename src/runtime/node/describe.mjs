// An app as a plain JSON description, in the form that published flow
// definitions carry: `order` is the place of declaration, `hasX` stands for a
// function, records are sorted by key, and shorthand types are written out.
// What those definitions do not know (schedules, HTTP endpoints, autoconfirm …)
// is added only where an app declares it.

/** The schema of an app. */
export function describeApp(app) {
  return {
    ...present('name', app.name),
    ...present('installationInstructions', app.installationInstructions),
    autoconfirm: app.autoconfirm === true,
    config: record(app.config, describeField),
    signals: record(app.signals, describeSignal),
    blocks: record(app.blocks, describeBlock),
    hasOnSync: isFunction(app.onSync),
    hasOnDrain: isFunction(app.onDrain),
    hasOnTimer: isFunction(app.onTimer),
    hasOnInternalMessage: isFunction(app.onInternalMessage),
    hasOnRequest: isFunction(app.http?.onRequest),
    schedules: record(app.schedules, describeSchedule),
  };
}

function describeBlock(block, order) {
  return {
    order,
    name: block.name ?? '',
    category: block.category ?? '',
    description: block.description ?? '',
    config: record(block.config, describeField),
    hasOnInternalMessage: isFunction(block.onInternalMessage),
    inputs: record(block.inputs, describeInput),
    outputs: record(block.outputs, describeOutput),
    signals: record(block.signals, describeSignal),
    hasOnSync: isFunction(block.onSync),
    hasOnDrain: isFunction(block.onDrain),
    hasOnTimer: isFunction(block.onTimer),
    ...flag('autoconfirm', block.autoconfirm),
    ...flag('entrypoint', block.entrypoint),
    ...flag('hasOnRequest', isFunction(block.http?.onRequest)),
    ...(size(block.schedules) > 0 ? { schedules: record(block.schedules, describeSchedule) } : {}),
  };
}

function describeInput(input, order) {
  return {
    order,
    ...present('name', input.name),
    ...present('description', input.description),
    config: record(input.config, describeField),
    hasOnEvent: isFunction(input.onEvent),
  };
}

function describeOutput(output, order) {
  return {
    order: typeof output.order === 'number' ? output.order : order,
    ...present('name', output.name),
    ...present('description', output.description),
    ...flag('default', output.default),
    ...flag('secondary', output.secondary),
    possiblePrimaryParents: [...(output.possiblePrimaryParents ?? [])],
    type: describeType(output.type),
  };
}

function describeField(field, order) {
  return {
    order,
    name: field.name ?? '',
    description: field.description ?? '',
    type: describeType(field.type),
    fixed: field.fixed === true,
    required: field.required === true,
    ...(field.default === undefined ? {} : { default: sorted(field.default) }),
    hasValidator: isFunction(field.validator),
    fieldKey: '',
    sensitive: field.sensitive === true,
    ...flag('hasSuggestValues', isFunction(field.suggestValues)),
  };
}

function describeSignal(signal, order) {
  return {
    order,
    name: signal.name ?? '',
    description: signal.description ?? '',
    sensitive: signal.sensitive === true,
    ...present('sensitivity', signal.sensitivity),
  };
}

function describeSchedule(schedule, order) {
  return {
    order,
    ...present('description', schedule.description),
    customizable: schedule.customizable === true,
    definition: sorted(schedule.definition ?? {}),
    hasOnTrigger: isFunction(schedule.onTrigger),
  };
}

/** `"string"` is `{type: "string"}`, `"any"` allows everything; a JSON schema stays, but for the two types it does not know. */
function describeType(type) {
  if (type === undefined || type === null || type === 'any') return {};
  if (type === 'jsonSchemaObject') return { type: 'object' };
  if (typeof type === 'string') return { type };
  if (typeof type !== 'object') return {};
  return sorted(type, (schema) => {
    if (schema.type === 'any') delete schema.type;
    else if (schema.type === 'jsonSchemaObject') schema.type = 'object';
    return schema;
  });
}

/** Keywords whose values are data, not schemas. */
const DATA = new Set(['default', 'enum', 'const', 'examples']);
/** Keywords whose values map names to schemas, so that a name is no keyword. */
const MAPS = new Set(['properties', 'patternProperties', 'definitions', '$defs', 'dependentSchemas']);

/** A copy as JSON has it, objects sorted by key; `change` may alter each copied object that is a schema. */
function sorted(value, change, isMap = false) {
  if (Array.isArray(value)) return value.map((item) => sorted(item === undefined ? null : item, change));
  if (value === null || typeof value !== 'object') return value;
  const copy = {};
  for (const key of Object.keys(value).sort()) {
    const inner = value[key];
    if (inner === undefined || typeof inner === 'function') continue;
    const changeInner = !isMap && DATA.has(key) ? undefined : change;
    define(copy, key, sorted(inner, changeInner, !isMap && MAPS.has(key)));
  }
  return change === undefined || isMap ? copy : change(copy);
}

/** Describes each entry of a record, with its place in it. */
function record(entries, describe) {
  const described = {};
  const keys = entries !== null && typeof entries === 'object' ? Object.keys(entries) : [];
  for (const key of [...keys].sort()) {
    const entry = entries[key];
    define(described, key, describe(entry !== null && typeof entry === 'object' ? entry : {}, keys.indexOf(key)));
  }
  return described;
}

/** Sets a property, also one that is called `__proto__`. */
const define = (object, key, value) =>
  Object.defineProperty(object, key, { __proto__: null, value, enumerable: true, writable: true, configurable: true });
const isFunction = (value) => typeof value === 'function';
const size = (entries) => (entries !== null && typeof entries === 'object' ? Object.keys(entries).length : 0);
const present = (key, value) => (value === undefined || value === null ? {} : { [key]: value });
const flag = (key, value) => (value === true ? { [key]: true } : {});
