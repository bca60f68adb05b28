{{- define "aim.labels" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: aim
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- /* What a selector may name: these never change. */}}
{{- define "aim.selector" -}}
app.kubernetes.io/name: {{ .name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- /* Of pods: without what every new chart would restart them for. */}}
{{- define "aim.podLabels" -}}
{{ include "aim.selector" . }}
app.kubernetes.io/part-of: aim
{{- end }}

{{- define "aim.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "aim.labels" . | nindent 2 }}
{{- end }}

{{- define "aim.image" -}}
{{ .root.Values.image.registry }}/aim-{{ .image }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end }}

{{- define "aim.natsUrl" -}}
{{- if not .Values.nats.bundled }}{{ .Values.nats.url }}
{{- else }}{{ ternary "tls" "nats" .Values.nats.auth.enabled }}://aim-nats.{{ .Release.Namespace }}.svc:4222
{{- end }}
{{- end }}

{{- /* Where pods may and should be: the same for services and NATS. */}}
{{- define "aim.placement" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "aim.selector" $ | nindent 8 }}
  {{- end }}
{{- with .root.Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Pod Security "restricted", and a root that nobody writes to. */}}
{{- define "aim.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{- define "aim.disruption" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "aim.metadata" . | nindent 2 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "aim.selector" . | nindent 6 }}
{{- end }}

{{- define "aim.isService" -}}
- {key: app.kubernetes.io/instance, operator: In, values: [{{ .Release.Name }}]}
- key: app.kubernetes.io/name
  operator: In
  values:
    {{- range $service, $_ := .Values.services }}
    - aim-{{ $service }}
    {{- end }}
{{- end }}

{{- define "aim.egressDns" -}}
- to:
    - namespaceSelector:
        matchLabels: {kubernetes.io/metadata.name: kube-system}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end }}

{{- /* The servers of a cluster, among themselves. */}}
{{- define "aim.natsPeers" -}}
- {{ .direction }}:
    - podSelector:
        matchLabels:
          {{- include "aim.selector" (dict "root" .root "name" "aim-nats") | nindent 10 }}
  ports:
    - {port: cluster, protocol: TCP}
{{- end }}

{{- /* --store_dir is an argument; every write is synced: an acknowledged event survives power loss. */}}
{{- define "aim.natsConf" -}}
port: 4222
http_port: 8222
server_name: $SERVER_NAME
jetstream {
  sync_interval: always
}
{{- if .Values.nats.auth.enabled }}
# relative to this file
include ../aim/nats-server/auth.conf
include ../aim/nats-server/tls.conf
{{- end }}
{{- if gt (int .Values.nats.replicas) 1 }}
cluster {
  name: aim
  port: 6222
  {{- if .Values.nats.auth.enabled }}
  include ../aim/nats-server/tls.conf
  {{- end }}
  routes: [
    {{- range $i := until (int .Values.nats.replicas) }}
    nats://aim-nats-{{ $i }}.aim-nats-headless.{{ $.Release.Namespace }}.svc:6222
    {{- end }}
  ]
}
{{- end }}
{{- end }}
