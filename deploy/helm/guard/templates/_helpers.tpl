{{- define "guard.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end }}

{{- define "guard.selector" -}}
app.kubernetes.io/name: guard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "guard.labels" -}}
{{ include "guard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "guard.valkeySelector" -}}
app.kubernetes.io/name: guard-valkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "guard.serviceAccount" -}}
{{- default (ternary (include "guard.name" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end }}

{{/* guard.yaml: what the chart knows, and the values' `config` over it. */}}
{{- define "guard.config" -}}
{{- $v := .Values -}}
{{- $made := dict
  "listen" (dict "address" "0.0.0.0:9000")
  "admin" (dict "http" "0.0.0.0:9464" "grpc" "127.0.0.1:9465")
  "limits" (dict
    "drain_s" $v.drainSeconds
    "max_concurrent_calls" (max 1 (div 16 (max 1 (int (default 1 $v.config.workers)))))
    "max_queued_calls" 64
    "max_request_bytes" 4194304
    "max_response_bytes" 1048576
  )
-}}
{{- if $v.secret.existingSecret }}{{- $_ := set $made "secret_file" "/var/run/secrets/guard/secret" }}{{- end }}
{{- if $v.adminToken.existingSecret }}{{- $_ := set $made.admin "token_file" "/var/run/secrets/guard-admin/token" }}{{- end }}
{{- if $v.tls.secretName -}}
{{- $tls := dict "cert_file" "/var/run/secrets/guard-tls/tls.crt" "key_file" "/var/run/secrets/guard-tls/tls.key" -}}
{{- if $v.tls.clientCaSecret -}}
{{- $_ := set $tls "client_ca_file" "/var/run/secrets/guard-clients/ca.crt" -}}
{{- $_ := set $tls "require_client_cert" true -}}
{{- end -}}
{{- $_ := set $made.listen "tls" $tls -}}
{{- end -}}
{{- if $v.upstreamTls.secretName -}}
{{- $tls := dict "ca_file" "/var/run/secrets/guard-upstream/ca.crt" -}}
{{- if $v.upstreamTls.mutual -}}
{{- $_ := set $tls "cert_file" "/var/run/secrets/guard-upstream/tls.crt" -}}
{{- $_ := set $tls "key_file" "/var/run/secrets/guard-upstream/tls.key" -}}
{{- end -}}
{{- with $v.upstreamTls.serverName }}{{- $_ := set $tls "server_name" . }}{{- end -}}
{{- $_ := set $made "upstream" (dict "tls" $tls) -}}
{{- end -}}
{{- if $v.valkey.enabled -}}
{{- $own := list (printf "%s-valkey:6379" (include "guard.name" .)) -}}
{{- $store := dict
  "addresses" (ternary $own $v.valkey.addresses $v.valkey.bundled)
  "cluster" (and $v.valkey.cluster (not $v.valkey.bundled))
  "username" $v.valkey.username
  "password_file" "/var/run/secrets/valkey/password"
  "tls" true
  "ca_file" "/var/run/secrets/valkey/ca.crt"
-}}
{{- $_ := set $made "history" (dict "store" "valkey" "valkey" $store) -}}
{{- end -}}
{{- $config := mergeOverwrite $made (deepCopy $v.config) -}}
{{- if and (ne $v.mode "sidecar") $config.upstream -}}
{{- if not $config.upstream.address -}}
{{- fail "config.upstream.address: is needed where config.upstream or upstreamTls says anything; models' own upstreams have their own tls" -}}
{{- end -}}
{{- end -}}
{{- if eq $v.mode "sidecar" -}}
{{- $upstream := default dict $config.upstream -}}
{{- $_ := set $upstream "address" (printf "127.0.0.1:%d" (int $v.server.port)) -}}
{{- $_ := set $config "upstream" $upstream -}}
{{- end -}}
{{- toYaml $config -}}
{{- end }}

{{/* What would render and not work. */}}
{{- define "guard.mistakes" -}}
{{- $v := .Values -}}
{{- if and $v.valkey.enabled (not $v.secret.existingSecret) -}}
{{- fail "valkey.enabled: replicas that share history need the same secret: secret.existingSecret" -}}
{{- end -}}
{{- if and $v.valkey.enabled (not $v.valkey.bundled) (not $v.valkey.addresses) -}}
{{- fail "valkey.enabled: valkey.addresses, or valkey.bundled: true" -}}
{{- end -}}
{{- if and $v.readinessService $v.tls.secretName -}}
{{- fail "readinessService: the kubelet's gRPC probe speaks no TLS" -}}
{{- end -}}
{{- if and $v.tls.clientCaSecret (not $v.tls.secretName) -}}
{{- fail "tls.clientCaSecret goes with tls.secretName" -}}
{{- end -}}
{{- range $key, $names := dict "listen" (list "address" "tls") "admin" (list "http" "token_file") "limits" (list "drain_s") -}}
{{- $given := default dict (get $v.config $key) -}}
{{- range $names -}}
{{- if hasKey $given . -}}
{{- fail (printf "config.%s.%s: ports, probes and volumes go by the chart's own: tls, adminToken, drainSeconds" $key .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if hasKey $v.config "secret_file" -}}
{{- fail "config.secret_file: the chart mounts secret.existingSecret" -}}
{{- end -}}
{{- $upstream := default dict $v.config.upstream -}}
{{- if eq $v.mode "sidecar" -}}
{{- if $upstream.address -}}
{{- fail "config.upstream.address: in mode sidecar it is server.port on loopback" -}}
{{- end -}}
{{- if not $v.server.image -}}
{{- fail "server.image: the model server's image, a release in which no holes are known" -}}
{{- end -}}
{{- if has (int $v.server.port) (list 9000 9464 9465) -}}
{{- fail (printf "server.port: %d is Guard's own, in the same pod" (int $v.server.port)) -}}
{{- end -}}
{{- else if not $upstream.address -}}
{{- $own := 0 -}}
{{- range $v.config.models -}}
{{- if (default dict .upstream).address }}{{- $own = add1 $own }}{{- end -}}
{{- end -}}
{{- if or (not $v.config.models) (lt (int $own) (len $v.config.models)) -}}
{{- fail "config.upstream.address: the model server as HOST:PORT, or an upstream for each of config.models" -}}
{{- end -}}
{{- end -}}
{{- range $v.profiles -}}
{{- $kinds := list .configMap .persistentVolumeClaim .image | compact -}}
{{- if ne (len $kinds) 1 -}}
{{- fail (printf "profiles: %s: one of configMap, persistentVolumeClaim, image" .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "guard.image" -}}
{{- $i := .Values.image -}}
{{- if $i.digest }}{{ $i.repository }}@{{ $i.digest }}{{ else }}{{ $i.repository }}:{{ default .Chart.AppVersion $i.tag }}{{ end -}}
{{- end }}

{{/* Guard's container. As a native sidecar put it under initContainers with `restartPolicy: Always`. */}}
{{- define "guard.container" -}}
{{- $v := .Values -}}
name: guard
image: {{ include "guard.image" . | quote }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args: [serve, --config, /etc/guard/guard.yaml]
{{- if ne $v.mode "gateway" }}
# A sidecar's hook is not held back until the server has ended, as SIGTERM is: so Guard drains while the server serves.
lifecycle:
  preStop:
    exec:
      command: [python, -c, "import os, signal; os.kill(1, signal.SIGTERM)"]
{{- end }}
{{- with $v.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: grpc
    containerPort: 9000
  - name: metrics
    containerPort: 9464
# A native sidecar starts before the server that it asks for, so this asks only whether Guard listens.
startupProbe:
  tcpSocket:
    port: grpc
  periodSeconds: 1
  failureThreshold: 60
# A gateway: Guard itself and one server at least, for one that is away must not take the others with it. Else: whether
# the models are served. The kubelet's gRPC probe speaks no TLS: with TLS HTTP is asked.
readinessProbe:
  {{- if $v.tls.secretName }}
  httpGet:
    path: {{ ternary "/readyz/any" "/readyz" (eq $v.mode "gateway") }}
    port: metrics
  {{- else }}
  grpc:
    port: 9000
    {{- with default (ternary "guard.v1.GuardService" "" (eq $v.mode "gateway")) $v.readinessService }}
    service: {{ . }}
    {{- end }}
  {{- end }}
  periodSeconds: 2
  failureThreshold: 1
# Whether it lives, whatever is behind it; a full minute of silence is a hang.
livenessProbe:
  httpGet:
    path: /healthz
    port: metrics
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  {{- toYaml $v.resources | nindent 2 }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: guard
    mountPath: /etc/guard
    readOnly: true
  - name: guard-tmp
    mountPath: /tmp
  {{- range $v.profiles }}
  - name: profile-{{ .name }}
    mountPath: /etc/guard-profiles/{{ .name }}
    readOnly: true
    {{- with .subPath }}
    subPath: {{ . }}
    {{- end }}
  {{- end }}
  {{- if $v.secret.existingSecret }}
  - name: guard-secret
    mountPath: /var/run/secrets/guard
    readOnly: true
  {{- end }}
  {{- if $v.adminToken.existingSecret }}
  - name: guard-admin
    mountPath: /var/run/secrets/guard-admin
    readOnly: true
  {{- end }}
  {{- if $v.tls.secretName }}
  - name: guard-tls
    mountPath: /var/run/secrets/guard-tls
    readOnly: true
  {{- end }}
  {{- if $v.tls.clientCaSecret }}
  - name: guard-clients
    mountPath: /var/run/secrets/guard-clients
    readOnly: true
  {{- end }}
  {{- if $v.upstreamTls.secretName }}
  - name: guard-upstream
    mountPath: /var/run/secrets/guard-upstream
    readOnly: true
  {{- end }}
  {{- if $v.valkey.enabled }}
  - name: guard-valkey
    mountPath: /var/run/secrets/valkey
    readOnly: true
  {{- end }}
  {{- with $v.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "guard.volumes" -}}
{{- $v := .Values -}}
- name: guard
  configMap:
    name: {{ include "guard.name" . }}
- name: guard-tmp
  emptyDir:
    medium: Memory
    sizeLimit: {{ $v.tmpSize }}
{{- range $v.profiles }}
- name: profile-{{ .name }}
  {{- if .configMap }}
  configMap:
    name: {{ .configMap }}
  {{- else if .persistentVolumeClaim }}
  persistentVolumeClaim:
    claimName: {{ .persistentVolumeClaim }}
    readOnly: true
  {{- else }}
  image:
    {{- toYaml .image | nindent 4 }}
  {{- end }}
{{- end }}
{{- with $v.secret.existingSecret }}
- name: guard-secret
  secret:
    secretName: {{ . }}
    items:
      - key: {{ $v.secret.key }}
        path: secret
{{- end }}
{{- with $v.adminToken.existingSecret }}
- name: guard-admin
  secret:
    secretName: {{ . }}
    items:
      - key: {{ $v.adminToken.key }}
        path: token
{{- end }}
{{- with $v.tls.secretName }}
- name: guard-tls
  secret:
    secretName: {{ . }}
{{- end }}
{{- with $v.tls.clientCaSecret }}
- name: guard-clients
  secret:
    secretName: {{ . }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- with $v.upstreamTls.secretName }}
- name: guard-upstream
  secret:
    secretName: {{ . }}
    items:
      - key: ca.crt
        path: ca.crt
      {{- if $v.upstreamTls.mutual }}
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
      {{- end }}
{{- end }}
{{- if $v.valkey.enabled }}
- name: guard-valkey # of the store's certificate Guard sees only who signed it
  projected:
    sources:
      - secret:
          name: {{ $v.valkey.passwordSecret }}
          items:
            - key: password
              path: password
      - secret:
          name: {{ $v.valkey.tlsSecret }}
          items:
            - key: ca.crt
              path: ca.crt
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
